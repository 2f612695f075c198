"""The library is compiled once on a machine and kept.

A compiler that is missing or fails costs speed alone: torch trains, and the compiler's complaint is printed.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace

import pytest

from lab import compiling
from lab.compiling import CannotCompile
from lab.files import ROOT
from lab.native import seam
from lab.native import trainer as native
from lab.native.seam import load_library
from lab.run.agreement import why_not
from lab.run.digest import code_digest
from lab.run.fit import fit
from lab.search.candidates import build_recipe
from lab.training.data import Digits, load_digits

FAILURES = {  # what a compiler does, the last argument being the file to write
    "a stub": ("echo 'xcrun: error: no developer tools' >&2; echo 'install them' >&2; exit 1", "no developer tools$"),
    "no licence": ("echo; echo 'You have not agreed to the licence.'; exit 69", "You have not agreed to the licence.$"),
    "too old": ('echo "unknown option $6" >&2; exit 1', "unknown option -std=c..17|unknown option -"),
    "silent": ("exit 3", "status 3, and nothing"),
    "no output": ("exit 0", "status 0, and nothing"),
    "complains and succeeds": ("echo 'nothing to do'", "nothing to do"),
    "not UTF-8": (r"printf '\377 broken' >&2; exit 1", "broken"),
    "killed": ("kill -9 $$", "status -9"),
    "garbage": ('for last; do :; done; echo garbage > "$last"', "trainer.so: "),
    "empty file": ('for last; do :; done; : > "$last"', "trainer.so: file too short"),
    "a folder": ('for last; do :; done; mkdir "$last"', "trainer.so: "),
}


@pytest.fixture(scope="module")
def digits():
    full = load_digits("sample")
    return Digits("sample", full.sha256, full.train.first(64), full.test.first(32))


@pytest.fixture
def recipe():
    return replace(build_recipe({"layers": "c4 M c4 G", "epochs": 1, "batch_size": 32}), compiled=True)


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """The folder where libraries are kept: an empty one, and nothing is loaded yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    seam._load.cache_clear()
    yield tmp_path / "cache" / "mnist-ladders"
    seam._load.cache_clear()


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Put a shell script in the compiler's place."""

    def write(script):
        path = tmp_path / "c++"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("CXX", str(path))
        return path

    return write


@pytest.mark.parametrize(("script", "complaint"), FAILURES.values(), ids=FAILURES)
def test_a_compiler_that_fails_is_quoted(script, complaint, compiler, recipe, digits):
    path = compiler(script)
    with pytest.raises(CannotCompile, match=f"{path}.*(?:{complaint})") as error:
        load_library()
    assert len(str(error.value).splitlines()) == 1
    assert why_not(recipe, digits).startswith(f"compiling it with {path} failed: ")


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        ("no-such-compiler", "there is no C.. compiler"),
        ("no-such-compiler -m32", "there is no C.. compiler"),
        ("g++ 'unfinished", "CXX=.* names no compiler: No closing quotation"),
    ],
)
def test_a_compiler_that_is_not_there(chosen, reason, monkeypatch, recipe, digits):
    monkeypatch.setenv("CXX", chosen)
    assert pytest.raises(CannotCompile, load_library).match(reason)
    assert why_not(recipe, digits)


def test_a_file_that_no_system_runs(compiler, recipe, digits):
    path = compiler("")
    path.write_bytes(b"\x7fELF broken")
    with pytest.raises(CannotCompile, match="failed: .*[Ee]xec format"):
        load_library()


def test_arguments_reach_the_compiler(compiler, monkeypatch):
    path = compiler('echo "told $1 and $2" >&2; exit 1')
    monkeypatch.setenv("CXX", f"{path} --quick '-D NAME'")
    with pytest.raises(CannotCompile, match="told --quick and -D NAME$"):
        load_library()


def test_a_folder_that_forbids_execution(compiler, monkeypatch):
    def refuse(path):
        raise OSError(f"{path}: failed to map segment from shared object")

    compiler('for last; do :; done; echo fine > "$last"')
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    with pytest.raises(CannotCompile, match="trainer.so: failed to map segment"):
        load_library()


def test_no_folder_for_temporary_files(compiler, monkeypatch, tmp_path):
    compiler("exit 0")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(CannotCompile, match="nowhere"):
        load_library()


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_a_library_of_something_else(compiler):
    compiler('for last; do :; done; g++ -shared -x c++ /dev/null -o "$last"')
    with pytest.raises(CannotCompile, match="undefined symbol"):
        load_library()


def test_a_compiler_that_is_mended_is_tried_again(compiler):
    compiler("echo first >&2; exit 1")
    with pytest.raises(CannotCompile, match="first"):
        load_library()
    compiler("echo second >&2; exit 1")
    with pytest.raises(CannotCompile, match="second"):
        load_library()


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("echo 'not today' >&2; echo 'nor tomorrow' >&2; exit 1", "failed: not today."),
        ('for last; do :; done; : > "$last"', "trainer.so: file too short."),
    ],
)
def test_torch_trains_instead_and_says_why(script, complaint, compiler, recipe, digits, tmp_path, capsys):
    compiler(script)
    rows = []
    for compiled in (True, False):
        chosen = replace(recipe, compiled=compiled)
        run = fit(chosen, digits, rung="t", device="cpu", run_dir=tmp_path / str(compiled))
        assert "trainer" not in run.record.versions
        rows.append([{k: v for k, v in row.items() if "seconds" not in k} for row in run.record.epochs])
    assert rows[0] == rows[1]
    printed = capsys.readouterr().out
    assert printed.count("Trained with torch, not with the compiled trainer") == 1
    assert complaint in printed
    assert "tomorrow" not in printed


def test_what_was_read_at_first_is_what_is_compiled_and_told_of(compiler, monkeypatch):
    compiler('for word; do case "$word" in *.cpp) cat "$word" "${word%.cpp}.h" >&2; esac; done; exit 1')
    before = code_digest(native.train_epoch_compiled)
    monkeypatch.setitem(seam.SOURCES, "trainer.cpp", compiling.Source("// this one\n"))
    monkeypatch.setitem(seam.SOURCES, "trainer.h", compiling.Source("// that one\n"))
    with pytest.raises(CannotCompile, match="// this one$"):
        load_library()
    assert code_digest(native.train_epoch_compiled) != before
    monkeypatch.undo()
    assert code_digest(native.train_epoch_compiled) == before
    assert {name.rpartition(".")[2] for name in seam.SOURCES} == {"h", "cpp"}
    monkeypatch.setattr(compiling, "FLAGS", [*compiling.FLAGS, "-g"])
    assert code_digest(native.train_epoch_compiled) != before


# ------------------------------------------------------------------------------------------------ what is kept


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The trainer, quickly compiled."""
    folder = tmp_path_factory.mktemp("library")
    for name, content in seam.SOURCES.items():
        (folder / name).write_text(content, encoding="utf-8")
    flags = ["-O0" if flag == "-O3" else flag for flag in compiling.FLAGS]
    subprocess.run(["g++", *flags, "trainer.cpp", "-o", "trainer.so"], cwd=folder, check=True)
    return folder / "trainer.so"


COPY = shutil.which("cp")


class Quick:
    """A compiler that has the library ready, and counts how often it is asked to compile."""

    def __init__(self, path, library):
        self.path, self.log = path, path.with_name(f"{path.name}.log")
        copy = f'for last; do :; done; echo "$@" >> "{self.log}"; {COPY} "{library}" "$last"'
        path.parent.mkdir(exist_ok=True)
        script = f'#!/bin/sh\ncase "$*" in *" -o "*) {copy};; *) echo "#define MACRO $*";; esac\n'
        path.write_text(script, encoding="utf-8")
        path.chmod(0o755)

    @property
    def calls(self):
        return len(self.log.read_text(encoding="utf-8").splitlines()) if self.log.exists() else 0


@pytest.fixture
def quick(tmp_path, monkeypatch, library):
    compiler = Quick(tmp_path / "quick", library)
    monkeypatch.setenv("CXX", str(compiler.path))
    return compiler


def load_anew():
    """As another process would."""
    seam._load.cache_clear()
    return load_library()


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
USE = """
import torch
from lab.native.library import Compiled
from lab.search.notation import Notation
from lab.training.data import load_digits

print(len(Compiled(Notation("c2 G"), 2).infer(load_digits("sample").test, torch.arange(3))))
assert torch.tensor(1e-39) * 1 != 0
"""


def use_elsewhere():
    """Another process that loads the library and calls it."""
    return subprocess.Popen([sys.executable, "-c", USE], cwd=ROOT, env=os.environ, stdout=subprocess.PIPE)


def whole(path):
    """Whether a file ends with the digest of all before."""
    content = path.read_bytes()
    return hashlib.sha256(content[:-32]).digest() == content[-32:]


@needs_compiler
def test_another_process_does_not_compile_again(quick, kept):
    load_library()
    load_library()
    assert quick.calls == 1
    (path,) = kept.iterdir()
    before = path.read_bytes()
    process = use_elsewhere()
    assert process.communicate()[0].split() == [b"3"]
    assert process.returncode == 0
    assert quick.calls == 1
    assert path.read_bytes() == before
    assert whole(path)


@needs_compiler
def test_several_processes_at_once_do_not_disturb_each_other(quick, kept):
    processes = [use_elsewhere() for _ in range(2)]
    assert [process.communicate()[0].split() for process in processes] == [[b"3"]] * 2
    assert [process.returncode for process in processes] == [0, 0]
    compiled = quick.calls
    assert compiled in (1, 2)
    assert [whole(path) for path in kept.iterdir()] == [True]  # nothing else was left behind
    load_anew()
    assert quick.calls == compiled


DAMAGES = {
    "empty": lambda content: b"",
    "short": lambda content: content[:20],
    "half": lambda content: content[: len(content) // 2],
    "one byte less": lambda content: content[:-1],
    "without its digest": lambda content: content[:-32],
    "one byte more": lambda content: content + b"x",
    "a bit in front": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "a bit within": lambda content: content[:5000] + bytes([content[5000] ^ 128]) + content[5001:],
    "a bit at the end": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "text": lambda content: b"nothing of this kind" * 100,
}


@needs_compiler
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_built_anew(damage, quick, kept):
    load_library()
    (path,) = kept.iterdir()
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(damage(content))
    assert not whole(path)
    load_anew()
    assert quick.calls == 2
    assert path.read_bytes() == content
    load_anew()
    assert quick.calls == 2


@needs_compiler
def test_a_whole_file_that_no_system_loads_is_built_anew(quick, kept):
    load_library()
    (path,) = kept.iterdir()
    content, other = path.read_bytes(), b"of another machine"
    path.unlink()
    path.write_bytes(other + hashlib.sha256(other).digest())
    assert whole(path)
    load_anew()
    assert quick.calls == 2
    assert path.read_bytes() == content


@needs_compiler
@pytest.mark.parametrize(
    "change",
    [
        lambda patch, compiler: patch.setattr(compiling, "FLAGS", [*compiling.FLAGS, "-g"]),
        lambda patch, compiler: patch.setattr(compiling, "FLAGS", compiling.FLAGS[::-1]),
        lambda patch, compiler: patch.setitem(seam.SOURCES, "lanes.h", compiling.Source("// another\n")),
        lambda patch, compiler: patch.setitem(seam.SOURCES, "new.h", compiling.Source("")),
        lambda patch, compiler: patch.setenv("CXX", f"{compiler.path} -DNDEBUG"),
        lambda patch, compiler: compiler.path.write_text(
            compiler.path.read_text(encoding="utf-8").replace("MACRO", "NEWER"), encoding="utf-8"
        ),
    ],
    ids=["flag", "order of flags", "source", "new source", "argument", "version"],
)
def test_what_another_library_may_come_of_has_another_name(change, quick, kept, monkeypatch):
    load_library()
    with monkeypatch.context() as patch:
        change(patch, quick)
        load_anew()
        assert quick.calls == 2
        assert len([*kept.iterdir()]) == 2
        load_anew()
    assert quick.calls == 2
    assert all(map(whole, kept.iterdir()))


@needs_compiler
@pytest.mark.parametrize("place", ["cache", "cache/mnist-ladders"])
def test_without_a_folder_to_keep_it_in_every_process_compiles(place, quick, tmp_path):
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_text("a file where a folder should be", encoding="utf-8")
    for number in (1, 2):
        assert load_anew().create
        assert quick.calls == number
    assert path.read_text(encoding="utf-8") == "a file where a folder should be"


@needs_compiler
def test_a_folder_in_the_library_s_place_is_left_alone(quick, kept):
    load_library()
    (path,) = kept.iterdir()
    path.unlink()
    path.mkdir()
    assert load_anew().create
    assert path.is_dir()


@needs_compiler
def test_what_does_not_compile_is_not_kept(compiler, kept):
    for script in (FAILURES["garbage"][0], "exit 1"):
        compiler(script)
        with pytest.raises(CannotCompile):
            load_library()
    assert not kept.exists()


@needs_compiler
def test_clang_is_taken_where_there_is_no_gcc(tmp_path, monkeypatch, library):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert pytest.raises(CannotCompile, load_library).match("there is no C.. compiler")
    clang = Quick(tmp_path / "bin" / "clang++", library)
    assert load_library().create
    assert clang.calls == 1
    gcc = Quick(tmp_path / "bin" / "g++", library)
    assert load_library().create
    assert (gcc.calls, clang.calls) == (1, 1)
