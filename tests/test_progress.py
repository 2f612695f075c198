"""One line per epoch without a person; a bar only in front of one."""

import io
import sys
from types import SimpleNamespace

from lab import progress

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
    assert line.split() == ["3", "0.006554", "0.1000", "98.00%", "0.0500", "99.40%", "60", "2.5"]


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
        with progress.EpochLines(3, 10, []) as lines:
            assert (lines.advance is not None) is watched
            if watched:
                lines.advance()
            lines.show(ROW)
        output = capsys.readouterr()
        assert output.out.splitlines() == [progress.HEADER, progress.format_epoch(ROW)]
        assert ("/30" in output.err) is watched


def test_epochs_of_an_earlier_run_are_shown_again(capsys):
    with progress.EpochLines(3, 10, [ROW]):
        pass
    assert "(epochs 1 to 1 were read from the checkpoint of an earlier run)" in capsys.readouterr().out
