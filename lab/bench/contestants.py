"""What is measured: `python -m lab.bench.contestants NAME` prints images per second of one contestant.

All of them train the network of rung a07, 6,720 parameters, with its full augmentation, batches of 128 and SGD; where
one leaves something out, its name says so.
"""

import ctypes
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import model
from lab.bench.meter import BATCH, SECONDS, measure
from lab.compiling import find_compiler, load, read_sources
from lab.native.seam import SOURCES
from lab.native.trainer import train_epoch_compiled
from lab.run.machine import keep_freed_memory
from lab.training.augment import ColorJitter, RandomAffine, RandomRotation
from lab.training.data import MEAN, STD, load_digits
from lab.training.loop import begin, prepare, train_epoch
from lab.training.recipe import Recipe

AUGMENTATION = (
    RandomRotation(degrees=6, fill=1 / 255),
    RandomAffine(degrees=7, translate=0.1, scale=(0.8, 1.2), shear=10),
    ColorJitter(brightness=0.4, contrast=0.4),
)
RECIPE = Recipe(network=model.TwoLayerHead, batch_size=BATCH, learning_rate=0.015, augmentation=AUGMENTATION)
NO_DROPOUT = replace(RECIPE, arguments={"dropout": 0.0})


def originals(workers):
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
    _drop_as_torch_does(network)
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

    return measure(train)


def _drop_as_torch_does(network):
    for unit in network.modules():
        for name, layer in unit.named_children():
            if isinstance(layer, model.Dropout):
                setattr(unit, name, nn.Dropout(layer.p))


def with_torch():
    """`train_epoch`, as every notebook called it before there was a compiled trainer."""
    return _measure_epochs(train_epoch, RECIPE)


def compiled():
    """`train_epoch_compiled`, as every notebook of a small network calls it."""
    return _measure_epochs(train_epoch_compiled, RECIPE)


def compiled_undistorted():
    """The same without distortions."""
    return _measure_epochs(train_epoch_compiled, replace(RECIPE, augmentation=()))


def compiled_bare():
    """The same without distortions and dropout."""
    return _measure_epochs(train_epoch_compiled, replace(NO_DROPOUT, augmentation=()))


def _measure_epochs(train_an_epoch, recipe):
    keep_freed_memory()
    split = load_digits().train
    trainee = begin(recipe, 0, torch.device("cpu"), len(split))
    return measure(lambda meter: train_an_epoch(trainee, recipe, split, advance=meter))


def torch_compile():
    """Our loop with `torch.compile`d network and loss, forward and backward."""
    keep_freed_memory()
    split = load_digits().train
    trainee = begin(RECIPE, 0, torch.device("cpu"), len(split))
    _drop_as_torch_does(trainee.network)  # ours could not be compiled in one piece
    loss_of = torch.compile(lambda images, labels: F.cross_entropy(trainee.network(images), labels), fullgraph=True)

    def train(meter):
        for index in torch.randperm(len(split)).split(BATCH)[:-1]:  # of one size: another would be compiled anew
            with trainee.augmentation:
                images = prepare(split.images[index], RECIPE.augmentation)
            trainee.optimizer.zero_grad()
            loss = loss_of(images, split.labels[index])
            loss.backward()
            trainee.optimizer.step()
            loss.item()
            meter()

    return measure(train)


def floor():
    """torch's forward, backward and optimiser step on one ready batch, without dropout."""
    keep_freed_memory()
    trainee = begin(NO_DROPOUT, 0, torch.device("cpu"), BATCH)
    images = torch.randn(BATCH, 1, 28, 28).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (BATCH,))

    def train(meter):
        trainee.optimizer.zero_grad()
        F.cross_entropy(trainee.network(images), labels).backward()
        trainee.optimizer.step()
        meter()

    return measure(train)


def arithmetic():
    """Multiply-accumulates per second of this core's vector units, on nothing but registers."""
    sources = SOURCES | read_sources(Path(__file__).parent)
    run = load("arithmetic", sources, find_compiler(), _declare)
    done, started = 0.0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        done += run(10_000_000)
    return done / (time.perf_counter() - started)


def _declare(library):
    run = library.multiply_accumulate
    run.restype, run.argtypes = ctypes.c_double, [ctypes.c_int64]
    return run


CONTESTANTS = {
    function.__name__: function
    for function in (
        originals,
        with_torch,
        compiled,
        compiled_undistorted,
        compiled_bare,
        torch_compile,
        floor,
        arithmetic,
    )
}

if __name__ == "__main__":
    name, *numbers = sys.argv[1:]
    print(CONTESTANTS[name](*map(int, numbers)))
