"""A compiler that is missing or fails costs speed alone: torch trains, and the compiler's complaint is printed."""

import ctypes
import shutil
import tempfile
from dataclasses import replace

import pytest

from lab.native import build
from lab.native import trainer as native
from lab.native.build import CannotCompile, load_library
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
    assert native.why_not(recipe, digits).startswith(f"compiling it with {path} failed: ")


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
    assert native.why_not(recipe, digits)


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
    monkeypatch.setitem(build.SOURCES, "trainer.cpp", build.Source("// this one\n"))
    monkeypatch.setitem(build.SOURCES, "trainer.h", build.Source("// that one\n"))
    with pytest.raises(CannotCompile, match="// this one$"):
        load_library()
    assert code_digest(native.train_epoch_compiled) != before
    monkeypatch.undo()
    assert code_digest(native.train_epoch_compiled) == before
    assert {name.rpartition(".")[2] for name in build.SOURCES} == {"h", "cpp"}
    monkeypatch.setattr(build, "FLAGS", [*build.FLAGS, "-g"])
    assert code_digest(native.train_epoch_compiled) != before
