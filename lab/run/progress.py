"""What a training run shows while it works: one line per epoch, and a bar for anyone watching."""

import sys
from fractions import Fraction

from tqdm import tqdm

from lab.numbers import in_percent

HEADER = "epoch  learning rate  train loss  train, %  test loss  test, %  errors"
BAR = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} batches, {remaining} left"


class Stopped(KeyboardInterrupt):
    """A run that was interrupted; Jupyter shows its one line and no traceback."""

    def _render_traceback_(self):
        return [str(self)]


def kernel():
    """The Jupyter kernel that runs this, or None."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None)


def someone_is_watching():
    """Tell a person in a notebook or terminal from a headless run.

    papermill and nbconvert tell the kernel that nobody is there to answer a prompt; Jupyter and Colab do not.
    """
    if kernel() is not None:
        return bool(getattr(kernel(), "_allow_stdin", False))
    return sys.stderr.isatty()


def format_epoch(row):
    """One epoch of a run record in fixed width."""
    return (
        f"{row['epoch']:5d}  {row['learning_rate']:13.6f}  {row['train_loss']:10.4f}  "
        f"{_in_percent(row, 'train'):>8}  {row['test_loss']:9.4f}  {_in_percent(row, 'test'):>7}  "
        f"{row['test_total'] - row['test_correct']:6d}"
    )


def _in_percent(row, split):
    return in_percent(Fraction(row[f"{split}_correct"], row[f"{split}_total"]))


class _CellBar(tqdm):
    """A bar in one output of a notebook's cell, which changes in place and is empty in the end.

    tqdm's own bar for notebooks needs ipywidgets, and stays in the page as a widget that other viewers cannot show.
    """

    def __init__(self, **settings):
        from IPython.display import display

        self.handle = display({"text/plain": ""}, raw=True, display_id=True)
        super().__init__(gui=True, ncols=80, **settings)
        self.display()

    def display(self, *_, **__):
        self.handle.update({"text/plain": str(self)}, raw=True)

    def clear(self, *_, **__):
        """Nothing to do: the bar is not in the way of the lines."""

    def close(self):
        self.disable = True
        self._decr_instances(self)
        self.handle.update({"text/plain": ""}, raw=True)


class EpochLines:
    """Prints a line per epoch; with them, for a person only, a bar over all batches with the time left.

    Args:
        batches: of every epoch.
        done: rows of the epochs that need not be trained any more.
    """

    def __init__(self, batches, done):
        self.done, self.epochs = list(done), len(batches)
        self.bar = None
        if someone_is_watching() and len(self.done) < self.epochs:
            settings = {"total": sum(batches), "initial": sum(batches[: len(done)])}
            place = {} if kernel() else {"file": sys.stderr, "leave": False}
            self.bar = (_CellBar if kernel() else tqdm)(bar_format=BAR, mininterval=0.25, **settings, **place)
        self.advance = self.bar.update if self.bar is not None else None

    def __enter__(self):
        print(HEADER, flush=True)
        for row in self.done:
            self.show(row)
        if 0 < len(self.done) < self.epochs:
            print(f"(epochs 1 to {len(self.done)} were read from the checkpoint of an earlier run)", flush=True)
        return self

    def __exit__(self, *_):
        if self.bar is not None:
            self.bar.close()

    def show(self, row):
        if self.bar is not None:
            self.bar.clear()
        print(format_epoch(row), flush=True)
        if self.bar is not None:
            self.bar.refresh()
