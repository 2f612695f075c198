"""One line per epoch without a person; a bar only in front of one."""

import io
import sys
from types import SimpleNamespace

import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbformat.v4 import new_code_cell, new_notebook

from lab.files import ROOT
from lab.run import progress

ROW = {
    "epoch": 3,
    "learning_rate": 0.006554,
    "train_loss": 0.1,
    "train_correct": 980,
    "train_total": 1000,
    "train_seconds": 2.0,
    "test_loss": 0.05,
    "test_correct": 9940,
    "test_total": 10_000,
    "test_seconds": 0.5,
}


def test_an_epoch_line_is_as_wide_as_its_header_and_counts_errors():
    line = progress.format_epoch(ROW)
    assert len(line) == len(progress.HEADER)
    assert line.split() == ["3", "0.006554", "0.1000", "98.00", "0.0500", "99.40", "60"]


def test_nobody_watches_a_headless_kernel_or_a_pipe(monkeypatch):
    for answers in (True, False):  # what Jupyter and papermill tell the kernel about answering prompts
        shell = SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=answers))
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert progress.someone_is_watching() is answers
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not progress.someone_is_watching()


def test_a_person_sees_a_bar_and_a_pipe_sees_only_lines(monkeypatch, capsys):
    for watched in (False, True):
        monkeypatch.setattr(progress, "someone_is_watching", lambda watched=watched: watched)
        with progress.EpochLines([10, 10, 5], []) as lines:
            assert (lines.advance is not None) is watched
            if watched:
                lines.advance()
            lines.show(ROW)
        output = capsys.readouterr()
        assert output.out.splitlines() == [progress.HEADER, progress.format_epoch(ROW)]
        assert ("/25" in output.err) is watched


def test_epochs_of_an_earlier_run_are_shown_again(capsys):
    with progress.EpochLines([10] * 3, [ROW]):
        pass
    note = "(epochs 1 to 1 were read from the checkpoint of an earlier run)"
    assert note in capsys.readouterr().out
    with progress.EpochLines([10], [ROW]):  # a finished run looks as it did
        pass
    assert note not in capsys.readouterr().out


# ------------------------------------------------------------------------------ in front of a notebook

RUN = """
import sys
sys.path.insert(0, {root!r})
import model, utils
from IPython import get_ipython
digits = utils.load_digits("sample", train_limit=512)
recipe = utils.Recipe(network=model.NormedSkeleton, epochs=3, batch_size=32)
get_ipython().kernel._allow_stdin = True  # as Jupyter says
"""
FIT = "run = utils.fit(recipe, digits, rung='mine', device='cpu', run_dir={folder!r})"


@pytest.mark.notebook
def test_a_notebook_shows_one_bar_that_is_gone_in_the_end(tmp_path):
    from nbclient import NotebookClient

    texts = []

    class Client(NotebookClient):
        def process_message(self, message, cell, cell_index):
            if message["msg_type"] == "update_display_data":
                texts.append(message["content"]["data"]["text/plain"])
            return super().process_message(message, cell, cell_index)

    watched = "get_ipython().kernel._allow_stdin = True\n"  # nbclient says otherwise with every cell
    fit = watched + FIT.format(folder=str(tmp_path))
    book = new_notebook(cells=[new_code_cell(RUN.format(root=str(ROOT))), new_code_cell(fit), new_code_cell(fit)])
    Client(book, timeout=120).execute()
    trained, read = (cell.outputs for cell in book.cells[1:])
    (bar,) = [out for out in trained if out.output_type == "display_data"]  # one, and empty in the end
    assert bar.data == {"text/plain": ""}
    assert any("left" in text and "/48 batches" in text for text in texts)
    assert {out.output_type for out in read} == {"stream"}  # nothing to wait for, no bar


def test_an_interrupted_run_says_so_in_one_line():
    shell, shown = InteractiveShell(), []
    shell._showtraceback = lambda kind, value, lines: shown.append((kind.__name__, lines))
    shell.run_cell(
        "from lab.run.progress import Stopped\nraise Stopped('stopped in epoch 3; run the cell again to go on')"
    )
    assert shown == [("Stopped", ["stopped in epoch 3; run the cell again to go on"])]
    assert issubclass(progress.Stopped, KeyboardInterrupt)
