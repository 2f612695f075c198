"""What a training run shows while it works: one line per epoch, and a bar for whoever sits in front of it."""

import sys

from tqdm import tqdm

HEADER = "epoch  learning rate  train loss   train %  test loss    test %  errors  seconds"


def someone_is_watching():
    """Tell a person in a notebook or terminal from a headless run.

    papermill and nbconvert tell the kernel that nobody is there to answer a prompt; Jupyter and Colab do not.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    kernel = getattr(shell, "kernel", None)
    if kernel is not None:
        return bool(getattr(kernel, "_allow_stdin", False))
    return sys.stderr.isatty()


def format_epoch(row):
    """One epoch of a run record in fixed width."""
    return (
        f"{row['epoch']:5d}  {row['learning_rate']:13.6f}  {row['train_loss']:10.4f}  "
        f"{row['train_correct'] / row['train_total']:8.2%}  {row['test_loss']:9.4f}  "
        f"{row['test_correct'] / row['test_total']:8.2%}  {row['test_total'] - row['test_correct']:6d}  "
        f"{row['train_seconds'] + row['test_seconds']:7.1f}"
    )


class EpochLines:
    """Prints a line per epoch; around them, for a person only, a bar over all batches with the time left."""

    def __init__(self, epochs, batches_per_epoch, done):
        self.bar = tqdm(
            total=epochs * batches_per_epoch,
            initial=len(done) * batches_per_epoch,
            disable=not someone_is_watching(),
            leave=False,
            unit="batch",
            file=sys.stderr,
        )
        self.done = list(done)
        self.advance = None if self.bar.disable else self.bar.update

    def __enter__(self):
        print(HEADER, flush=True)
        for row in self.done:
            self.show(row)
        if self.done:
            print(f"(epochs 1 to {len(self.done)} were read from the checkpoint of an earlier run)", flush=True)
        return self

    def __exit__(self, *_):
        self.bar.close()

    def show(self, row):
        self.bar.clear()
        print(format_epoch(row), flush=True)
        self.bar.refresh()
