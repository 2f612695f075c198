"""The C++ of this folder, compiled when it is first needed."""

import ctypes
import functools
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
COMMENT_OR_TEXT = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\''
OPERATOR = r"<<=|>>=|->\*?|\.\.\.|::|\+\+|--|<<|>>|[<>=!+*/%&|^-]=|&&|\|\||##?"
TOKEN = re.compile(rf"{COMMENT_OR_TEXT}|\w[\w.]*|{OPERATOR}|\\?\n|[^\w\s]", re.DOTALL)


class Source(str):
    """The text of a C++ file; a digest counts only its tokens, not comments and layout."""

    def tokens(self):
        """Tokens, a directive of the preprocessor on a line of its own."""
        found, in_directive, starts = [], False, True
        for token in TOKEN.findall(self):
            if token.startswith(("//", "/*")) or token == "\\\n":
                continue
            if token == "\n":
                found += ["\n"] if in_directive else []
                in_directive, starts = False, True
                continue
            if starts and token == "#":
                in_directive = True
                found.append("\n")
            starts = False
            found.append(token)
        return " ".join(found)


# read once, so that what is compiled is what lab.run.digest finds here, whatever happens to the files meanwhile
SOURCES = {
    path.name: Source(path.read_text(encoding="utf-8"))
    for path in sorted(FOLDER.iterdir())
    if path.suffix in (".h", ".cpp")
}
FLAGS = ["-O3", "-march=native", "-ffast-math", "-fno-finite-math-only", "-std=c++17", "-shared", "-fPIC"]
FUNCTIONS = {
    "create": ctypes.c_void_p,
    "destroy": None,
    "copy_state": None,
    "copy_gradient": None,
    "copy_mask": None,
    "draw_words": None,
    "train": None,
    "evaluate": None,
}


class CannotCompile(RuntimeError):
    """There is no C++ compiler, or none that works; the message says which, without a full stop."""


def load_library():
    """The compiled trainer; five seconds of compiling, once per process.

    The compiler is g++ unless CXX names another, with arguments if it needs any. Raises: CannotCompile.
    """
    chosen = os.environ.get("CXX", "")
    try:
        command = shlex.split(chosen) or ["g++"]
    except ValueError as error:
        raise CannotCompile(f"CXX={chosen!r} names no compiler: {error}") from error
    if shutil.which(command[0]) is None:
        raise CannotCompile("there is no C++ compiler")
    return _build(*command)


@functools.cache
def _build(*command):
    """Compile for this very processor, in a fresh folder, so that no old library can be found."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            for path, content in SOURCES.items():
                Path(folder, path).write_text(content, encoding="utf-8")
            target = Path(folder, "trainer.so")
            arguments = [*command, *FLAGS, Path(folder, "trainer.cpp"), "-o", target]
            done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
            if done.returncode or not target.exists():
                said = (
                    done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}, and nothing was written"
                )
                raise OSError(said.partition("\n")[0])
            library = ctypes.CDLL(str(target))
        for function, result in FUNCTIONS.items():
            getattr(library, function).restype = result
    except (OSError, AttributeError) as error:  # AttributeError: some other library
        raise CannotCompile(f"compiling it with {' '.join(command)} failed: {error}") from error
    return library
