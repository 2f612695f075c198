"""What a run uses of the machine: device, threads, memory, and the trainer that is faster there."""

import contextlib
import ctypes

import torch

from lab.native import trainer
from lab.run.agreement import why_not
from lab.run.parameters import check_values
from lab.run.record import COMPILED, describe_versions
from lab.training import loop

SMALL = 50_000  # parameters of networks for which a second thread costs more than it brings, see choose_threads


def choose_threads(recipe):
    """CPU threads for a network: one for small ones, torch's own number for the others.

    Measured with `train_epoch` on two cores, as images per second of two threads against one: a07 gains a fifth on an
    idle machine, and falls to a half beside two busy processes, such as other runs; d01 with its 257,354 parameters
    is 1.9 times as fast, and falls to three quarters. Several runs side by side use the cores best.
    """
    return 1 if recipe.parameters < SMALL else torch.get_num_threads()


@contextlib.contextmanager
def use_threads(count):
    """Let torch use `count` threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_device(name):
    """The torch device for "auto", "cpu", "cuda" or "mps"; ValueError if unknown, RuntimeError if not available."""
    check_values({"device": name})
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, available in there.items() if available)
    if not there[name]:
        raise RuntimeError(f'device={name!r} is not available on this machine; use device="cpu" or "auto"')
    return torch.device(name)


def choose_trainer(recipe, digits, device, seed):
    """The Trainer of a run, and the versions to record; says so where there is no compiled training."""
    versions = describe_versions()
    with_torch = loop.Trainer(loop.train_epoch, loop.infer_with_torch)
    if not recipe.compiled:
        return with_torch, versions
    reason = why_not(recipe, digits, seed) if device.type == "cpu" else f"the device is {device.type}"
    if reason is None:
        return trainer.COMPILED, versions | {"trainer": COMPILED}
    print(f"Trained with torch, not with the compiled trainer, which is faster on a CPU: {reason}.")
    return with_torch, versions


def keep_freed_memory():
    """Tell glibc to keep freed memory for the next batch: fetching it again costs a quarter of an epoch."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library: nothing to tell
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
