"""Images per second of the originals' training loop and of ours, measured side by side on this machine.

Every measurement is a process of its own. All of them train the network of rung a07, 6,720 parameters, with its
full augmentation (except the floor, which trains on one ready batch), batches of 128 and SGD. Rounds alternate between
the contestants, so that a slow minute of the machine hits all of them; the median round counts.
"""

import os
import statistics
import subprocess
import sys
import time
import warnings

import torch
from torch import nn
from torch.nn import functional as F

import model
from lab.run.machine import keep_freed_memory
from lab.training.augment import ColorJitter, RandomAffine, RandomRotation
from lab.training.data import MEAN, STD, load_digits
from lab.training.loop import begin, train_epoch
from lab.training.recipe import Recipe

ROUNDS = 3
WARM_UP_BATCHES, SECONDS = 10, 8.0
BATCH = 128
AUGMENTATION = (
    RandomRotation(degrees=6, fill=1 / 255),
    RandomAffine(degrees=7, translate=0.1, scale=(0.8, 1.2), shear=10),
    ColorJitter(brightness=0.4, contrast=0.4),
)


class _EnoughMeasured(Exception):
    """Raised to leave a training loop once the time is over."""


class _Meter:
    """Counts batches after a warm-up, until the time is over."""

    def __init__(self):
        self.batches, self.started = -WARM_UP_BATCHES, None

    def __call__(self):
        self.batches += 1
        if self.batches == 0:
            self.started = time.perf_counter()
        elif self.batches > 0 and time.perf_counter() - self.started > SECONDS:
            raise _EnoughMeasured

    @property
    def images_per_second(self):
        return self.batches * BATCH / (time.perf_counter() - self.started)


def _measure(train):
    meter = _Meter()
    try:
        while True:
            train(meter)
    except _EnoughMeasured:
        return meter.images_per_second


def originals_loop(workers):
    """PIL images through torchvision's transforms, a DataLoader, `nn.Dropout`, the default memory format."""
    from PIL import Image
    from torchvision import transforms

    warnings.filterwarnings("ignore", "This DataLoader will create")  # trying too many workers is the point
    split = load_digits().train
    transform = transforms.Compose(
        [
            transforms.RandomRotation((-6, 6), fill=(1,)),
            transforms.RandomAffine(degrees=7, shear=10, translate=(0.1, 0.1), scale=(0.8, 1.2)),
            transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
            transforms.ToTensor(),
            transforms.Normalize((MEAN,), (STD,)),
        ]
    )

    class PilDigits(torch.utils.data.Dataset):  # what torchvision.datasets.MNIST does per image
        def __len__(self):
            return len(split)

        def __getitem__(self, index):
            image = Image.fromarray(split.images[index, 0].numpy(), mode="L")
            return transform(image), int(split.labels[index])

    loader = torch.utils.data.DataLoader(PilDigits(), batch_size=BATCH, shuffle=True, num_workers=workers)
    network = model.TwoLayerHead()
    for unit in network.modules():
        for name, layer in unit.named_children():
            if isinstance(layer, model.Dropout):
                setattr(unit, name, nn.Dropout(layer.p))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.015, momentum=0.9)

    def train(meter):
        correct = 0
        for images, labels in loader:
            optimizer.zero_grad()
            logits = network(images)
            loss = F.nll_loss(F.log_softmax(logits, dim=1), labels)
            loss.backward()
            optimizer.step()
            correct += (logits.argmax(1) == labels).sum().item()
            meter()

    return _measure(train)


def our_loop():
    """`train_epoch` as every notebook calls it."""
    keep_freed_memory()
    split = load_digits().train
    recipe = Recipe(network=model.TwoLayerHead, batch_size=BATCH, learning_rate=0.015, augmentation=AUGMENTATION)
    trainee = begin(recipe, 0, torch.device("cpu"), len(split))
    return _measure(lambda meter: train_epoch(trainee, recipe, split, advance=meter))


def floor():
    """Forward, backward and optimiser step on one ready batch, without dropout."""
    keep_freed_memory()
    recipe = Recipe(network=model.TwoLayerHead, arguments={"dropout": 0.0}, batch_size=BATCH, learning_rate=0.015)
    trainee = begin(recipe, 0, torch.device("cpu"), BATCH)
    images = torch.randn(BATCH, 1, 28, 28).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (BATCH,))

    def train(meter):
        trainee.optimizer.zero_grad()
        F.cross_entropy(trainee.network(images), labels).backward()
        trainee.optimizer.step()
        meter()

    return _measure(train)


CONTESTANTS = {"originals": originals_loop, "ours": our_loop, "floor": floor}


def _run(contestant, *arguments, processes=1, threads):
    """Images per second of `processes` processes together, each on `threads` threads."""
    command = [sys.executable, "-m", "lab.bench", contestant, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    pipe = {"stdout": subprocess.PIPE, "encoding": "utf-8"}
    started = [subprocess.Popen(command, env=environment, **pipe) for _ in range(processes)]
    return sum(float(process.communicate()[0]) for process in started)


def main():
    cores = min(2, os.cpu_count())
    rates = {}
    print(f"{cores} cores, torch {torch.__version__}, {ROUNDS} rounds of {SECONDS:.0f} s each, {load_digits()!r}")
    workers = max((0, 1, 2, 4), key=lambda count: _run("originals", count, threads=cores))
    for _ in range(ROUNDS):
        for name, measure in {
            f"originals' loop, {workers} workers, {cores} threads": lambda: _run("originals", workers, threads=cores),
            f"(a) ours, one run on {cores} threads": lambda: _run("ours", threads=cores),
            f"(b) ours, {cores} runs on one thread each": lambda: _run("ours", processes=cores, threads=1),
            f"floor of (a): one run on {cores} threads": lambda: _run("floor", threads=cores),
            f"floor of (b): {cores} runs on one thread each": lambda: _run("floor", processes=cores, threads=1),
        }.items():
            rates.setdefault(name, []).append(measure())
    medians = {name: statistics.median(values) for name, values in rates.items()}
    first = next(iter(medians.values()))
    print(f"\n{'':45} {'images/s':>9} {'lowest':>8} {'highest':>8} {'times':>6} {'s/epoch':>8}")
    for name, rate in medians.items():
        print(
            f"{name:45} {rate:9,.0f} {min(rates[name]):8,.0f} {max(rates[name]):8,.0f} "
            f"{rate / first:6.2f} {60_000 / rate:8.1f}"
        )
    _, _, ours, _, bottom = medians.values()
    print(f"\n(b) takes {bottom / ours:.2f} times the floor")


if __name__ == "__main__":
    name, *numbers = sys.argv[1:]
    print(CONTESTANTS[name](*map(int, numbers)))
