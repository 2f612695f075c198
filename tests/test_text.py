"""Text is UTF-8, whatever the locale of the machine: in files, on the command line and between processes."""

import ast
import json
import os
import subprocess
import sys

import pytest

from lab.files import ROOT, write_atomically
from lab.run.parameters import check_values
from lab.run.schema import read_json

COMPILER = "lab/compiling.py"  # what a compiler complains of comes as its locale has it
FILES = sorted(path for path in (ROOT / "lab").rglob("*.py") if not path.as_posix().endswith(COMPILER))
LOCALES = {
    "plain C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "code page": {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_text_file_and_pipe_has_its_encoding_written_down(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = {keyword.arg for keyword in node.keywords}
            assert name not in ("read_text", "write_text") or "encoding" in given, f"line {node.lineno}"
            assert not given & {"text", "universal_newlines"}, f"line {node.lineno}"


@pytest.mark.parametrize("settings", LOCALES.values(), ids=LOCALES)
def test_commands_read_and_write_utf8_whatever_the_locale(settings):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LC_", "LANG"))}
    done = subprocess.run(
        [sys.executable, "-m", "lab", "steps"], cwd=ROOT, env=environment | settings, capture_output=True, timeout=120
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert "A07 · One cycle of the learning rate" in done.stdout.decode()
    candidate = json.dumps({"layers": "c4 – Übung →", "rate": [0.1, 0.2]}, ensure_ascii=False).encode()
    command = [sys.executable, "-m", "lab", "screen"]
    done = subprocess.run(
        command, input=candidate, cwd=ROOT, env=environment | settings, capture_output=True, timeout=120, check=True
    )
    assert {json.loads(line)["layers"] for line in done.stdout.splitlines()} == {"c4 – Übung →"}


def test_names_of_files_that_no_locale_reads_go_in_and_out_unchanged(tmp_path):
    name = os.fsdecode(b"l\xe4ufe")
    write_atomically(tmp_path / "text", f"<{name} – 🙂>")
    assert (tmp_path / "text").read_bytes() == b"<l\xe4ufe" + " – 🙂>".encode()


@pytest.mark.parametrize("folder", ["läufe", "mit Leerzeichen", "🙂👩‍🏫", "runs\u00a0", "~/runs"])
def test_a_folder_may_have_any_name_that_a_folder_can_have(folder):
    check_values({"run_dir": folder})
    for broken in (folder + "\n", folder + "\0"):
        with pytest.raises(ValueError, match="run_dir=.* must be the name of a folder"):
            check_values({"run_dir": broken})


def test_json_is_read_as_utf8(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes('{"layers": "ü"}'.encode())
    assert read_json(path, "candidate") == {"layers": "ü"}
