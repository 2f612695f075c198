"""C++ that is compiled when it is first needed on a machine, and kept in the user's cache folder."""

import contextlib
import ctypes
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import platformdirs

from lab.files import write_atomically


class Source(str):
    """The text of a C++ file."""


QUIETLY = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "errors": "replace"}

CPU = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
MATHS = ["-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-ffp-contract=fast"]  # sums keep their order
FLAGS = ["-O3", CPU, *MATHS, "-std=c++17", "-shared", "-fPIC"]


class CannotCompile(RuntimeError):
    """There is no C++ compiler, or none that works; the message says which, without a full stop."""


def read_sources(folder):
    """The C++ of a folder by name; whatever happens to the files later, this is what is compiled and told of."""
    paths = [path for path in sorted(Path(folder).iterdir()) if path.suffix in (".h", ".cpp")]
    return {path.name: Source(path.read_text(encoding="utf-8")) for path in paths}


def find_compiler():
    """The command: g++, or clang++ where there is none, unless CXX names another, with arguments if it needs any.

    Raises: CannotCompile if it is not there.
    """
    chosen = os.environ.get("CXX", "")
    try:
        command = shlex.split(chosen) or [next(filter(shutil.which, ("g++", "clang++")), "g++")]
    except ValueError as error:
        raise CannotCompile(f"CXX={chosen!r} names no compiler: {error}") from error
    if shutil.which(command[0]) is None:
        raise CannotCompile("there is no C++ compiler")
    return command


def load(name, sources, command, declare):
    """<name>.cpp as a library: from the user's cache folder, or compiled and put there.

    Args:
        sources: from `read_sources`.
        command: from `find_compiler`.
        declare: tells ctypes what a library's functions take, and returns it; AttributeError if it lacks one of them.

    Raises: CannotCompile.
    """
    try:
        place = _place(name, sources, command)
        if place and _is_whole(place):
            with contextlib.suppress(OSError, AttributeError):
                return declare(ctypes.CDLL(str(place)))
        with tempfile.TemporaryDirectory() as folder:
            built = _compile(name, sources, command, Path(folder))
            library = declare(ctypes.CDLL(str(built)))
            with contextlib.suppress(OSError):  # nowhere to keep it: the next process compiles again
                content = built.read_bytes()
                if place:
                    write_atomically(place, content + hashlib.sha256(content).digest())
            return library
    except (OSError, AttributeError) as error:  # AttributeError: some other library
        raise CannotCompile(f"compiling it with {' '.join(command)} failed: {error}") from error


def _place(name, sources, command):
    """Where the library is kept; None where it cannot be known, or where there is no home.

    The name differs where the library may, since unlike machines may share a home folder: a compiler's own macros tell
    its version and what its flags make of the processor.
    """
    asked = subprocess.run([*command, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull], **QUIETLY)
    key = hashlib.sha256(json.dumps([command, FLAGS, sources, asked.stdout]).encode()).hexdigest()[:20]
    try:
        return platformdirs.user_cache_path("mnist-ladders") / f"{name}-{key}.so" if not asked.returncode else None
    except RuntimeError:
        return None


def _is_whole(place):
    """Whether a kept library is there and ends with the digest of all before."""
    content = b""
    with contextlib.suppress(OSError):
        content = place.read_bytes()
    return hashlib.sha256(content[:-32]).digest() == content[-32:]


def _compile(name, sources, command, folder):
    """Compile into a folder; returns the library."""
    for path, content in sources.items():
        (folder / path).write_text(content, encoding="utf-8")
    target = folder / f"{name}.so"
    done = subprocess.run([*command, *FLAGS, folder / f"{name}.cpp", "-o", target], **QUIETLY)
    if done.returncode or not target.exists():
        said = done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}, and nothing was written"
        lines = said.splitlines()
        raise OSError(next((line for line in lines if ": error: " in line), lines[0]))
    return target
