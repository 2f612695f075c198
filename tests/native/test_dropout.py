"""Dropout of the compiled trainer: the generator against its authors' numbers, and what it makes of a network."""

import ctypes
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lab.compiling import CPU
from lab.native import trainer as native
from lab.native.batches import draw
from lab.native.library import Compiled
from lab.native.seam import SOURCES, STEP
from lab.run import progress
from lab.run.agreement import why_not
from lab.run.fit import fit
from lab.search import trials
from lab.training.data import Digits, load_digits
from lab.training.loop import begin
from lab.training.recipe import Recipe
from model import Dropout, TwoLayerHead, project

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
# Random123's kat_vectors for philox4x32 with 10 rounds: counter, key, output
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.fixture(scope="module")
def digits():
    full = load_digits("sample")
    return Digits("sample", full.sha256, full.train.first(336), full.test.first(96))


GENERATOR = """
#include "philox.h"
extern "C" int count_lanes() { return LANES; }
extern "C" void draw_words(const uint32_t *from, uint64_t key, uint32_t *to) {  // (4, LANES)
    Bits words[4];
    for (int w = 0; w < 4; w++)
        for (int n = 0; n < LANES; n++) words[w][n] = from[w * LANES + n];
    philox(words, key);
    for (int w = 0; w < 4; w++)
        for (int n = 0; n < LANES; n++) to[w * LANES + n] = words[w][n];
}
"""
WIDTHS = {"of this processor": [CPU], "narrow": []}


@pytest.fixture(scope="module", params=WIDTHS.values(), ids=WIDTHS)
def generator(request, tmp_path_factory):
    """The generator alone, as wide as the processor allows, and as narrow as any."""
    folder = tmp_path_factory.mktemp("philox")
    for name, content in (SOURCES | {"words.cpp": GENERATOR}).items():
        (folder / name).write_text(content, encoding="utf-8")
    command = ["g++", "-O1", *request.param, "-std=c++17", "-shared", "-fPIC", "words.cpp", "-o", "words.so"]
    subprocess.run(command, cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "words.so"))
    library.draw_words.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p]
    return library


def words(generator, counters, key):
    """Philox of as many counters as it takes at once, uint32 (4, LANES)."""
    counters, drawn = np.ascontiguousarray(counters, dtype=np.uint32), np.zeros(counters.shape, dtype=np.uint32)
    generator.draw_words(counters.ctypes.data, key, drawn.ctypes.data)
    return drawn


def numbers(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_the_generator_draws_what_its_authors_say(counter, key, expected, generator):
    """In every lane, whatever stands beside it."""
    (first, second), lanes = numbers(key), generator.count_lanes()
    assert lanes in (4, 8, 16)
    for lane in range(lanes):
        counters = np.arange(4 * lanes).reshape(4, lanes)
        counters[:, lane] = numbers(counter)
        assert [*words(generator, counters, second << 32 | first)[:, lane]] == numbers(expected)


@pytest.mark.parametrize(
    ("unit", "image", "channel", "pixel"),
    [(0, 0, 0, 0), (0, 31, 5, 776), (0, 17, 3, 24), (1, 9, 2, 400), (2, 0, 0, 0), (2, 31, 39, 0)],
)
def test_a_counter_is_image_channel_first_of_eight_pixels_and_unit(unit, image, channel, pixel, generator, digits):
    """Sixteen bits for each activation, the lower half of a word first; those below the rate are dropped."""
    key = 2**62 + 5
    counters = np.tile([[image], [channel], [pixel], [unit]], generator.count_lanes())
    bits = words(generator, counters, key)[:, 0].copy().view(np.uint16)
    kept = masks_of(digits, key)[unit][image, channel].flatten()[pixel : pixel + 8] > 0
    assert [*kept] == [*(bits >= round(0.3 * 2**16))[: len(kept)]]


class Dropped(nn.Sequential):
    """Two layers of dropout on maps of 28x28, one before a pooling, and one on a single pixel."""

    def __init__(self, dropouts=(0.3, 0.3, 0.3), kind=Dropout):
        one, two, three = dropouts
        super().__init__(
            project(1, 6),
            nn.BatchNorm2d(6),
            kind(one),
            project(6, 6),
            nn.BatchNorm2d(6),
            kind(two),
            nn.AvgPool2d(28),
            project(6, 40),
            nn.ReLU(),
            kind(three),
            project(40, 10),
            nn.Flatten(),
        )


def recipe(**settings):
    return Recipe(network=Dropped, **{"batch_size": 32} | settings)


def masks_of(digits, key, **arguments):
    """Masks of the three layers in a batch, float32 (32, channels, height, width)."""
    chosen = recipe(arguments=arguments)
    trainee, order = begin(chosen, 0, torch.device("cpu"), 336), torch.arange(32)
    trainer, drawn = Compiled.of(trainee, 32), draw(trainee, chosen, digits.train, order)
    trainer.train(digits.train, order, drawn, np.array([(0, 0, 1, key)], dtype=STEP), chosen)
    return trainer.masks(32)


@pytest.mark.parametrize("rate", [0.03, 0.05, 0.25, 0.5, 0.9, 1 / 3])
@pytest.mark.parametrize("kind", [nn.Dropout, Dropout])
def test_so_many_are_dropped_and_the_others_scaled(rate, kind, digits):
    first, second, pixel = masks_of(digits, 1, dropouts=[rate] * 3, kind=kind)
    rounded = round(rate * 2**16) / 2**16
    for mask in (first, second, pixel):
        assert mask.unique().tolist() == pytest.approx([0, 1 / (1 - rounded)], rel=1e-6)
        share, spread = (mask == 0).float().mean().item(), (rate * (1 - rate) / mask.numel()) ** 0.5
        assert abs(share - rate) < 4 * spread
    for axis in range(4):  # no image, channel, row or column is better off than others
        others = [other for other in range(4) if other != axis]
        shares = (first == 0).float().mean(dim=others)
        assert (shares - rate).abs().max() < 5 * (rate * (1 - rate) * len(shares) / first.numel()) ** 0.5


def test_rates_too_small_for_sixteen_bits_drop_nothing(digits):
    assert masks_of(digits, 1, dropouts=[1e-6, 0, 0.0]) == []


def correlation(one, other):
    return torch.corrcoef(torch.stack([(one > 0).float().flatten(), (other > 0).float().flatten()]))[0, 1].abs().item()


def test_masks_have_nothing_to_do_with_each_other(digits):
    first, second, _ = masks_of(digits, 5)
    later, _, _ = masks_of(digits, 6)
    pairs = {
        "layers": (first, second),
        "keys": (first, later),
        "images": (first[1:], first[:-1]),
        "groups of images": (first[16:], first[:16]),
        "channels": (first[:, 1:], first[:, :-1]),
        "rows": (first[..., 1:, :], first[..., :-1, :]),
        "columns": (first[..., 1:], first[..., :-1]),
        "halves of a word": (first[..., 1::2], first[..., ::2]),
        "words of a counter": (first[..., 2:], first[..., :-2]),
        "counters": (first.flatten(2)[..., 8:], first.flatten(2)[..., :-8]),
    }
    for name, (one, other) in pairs.items():
        assert correlation(one, other) < 4.5 / one.numel() ** 0.5, name


def test_the_same_key_draws_the_same(digits):
    assert all(map(torch.equal, masks_of(digits, 2**62 + 5), masks_of(digits, 2**62 + 5)))
    assert not torch.equal(masks_of(digits, 5)[0], masks_of(digits, 5 + 2**32)[0])


def test_what_is_measured_is_not_dropped(digits):
    chosen = recipe()
    trainee = begin(chosen, 0, torch.device("cpu"), 336)
    without = begin(recipe(arguments={"dropouts": [0, 0, 0]}), 0, torch.device("cpu"), 336)
    trainer, order = Compiled.of(trainee, 32), torch.arange(32)
    drawn = draw(trainee, chosen, digits.train, order)
    trainer.train(digits.train, order, drawn, np.array([(0, 0, 1, 7)], dtype=STEP), chosen)
    trainer.store(trainee, 1)
    without.network.load_state_dict(trainee.network.state_dict())
    order = torch.arange(len(digits.test))
    measured = [Compiled(network, 32).infer(digits.test, order) for network in (trainee.network, without.network)]
    assert torch.equal(*measured)
    assert torch.equal(trainer.infer(digits.test, order), measured[0])  # what it trained it measures without dropout


def keys_of(chosen, seed, monkeypatch, digits, epochs=2):
    found = []
    train = Compiled.train
    with monkeypatch.context() as patch:
        patch.setattr(Compiled, "train", lambda self, *given: [found.extend(given[3]["key"]), train(self, *given)][1])
        trials._train(replace(chosen, epochs=epochs), digits, seed)
    return found


def test_every_batch_of_every_seed_has_a_key_of_its_own(digits, monkeypatch):
    keys = [keys_of(recipe(), seed, monkeypatch, digits) for seed in (0, 1)]
    assert len(set(keys[0] + keys[1])) == 2 * 2 * 11
    assert keys[0] == keys_of(recipe(), 0, monkeypatch, digits)
    assert not any(keys_of(recipe(arguments={"dropouts": [0, 0, 0]}), 0, monkeypatch, digits))


def test_without_dropout_no_random_numbers_are_drawn(digits):
    states = []
    for dropouts in ([0, 0, 0], [0.1, 0, 0]):
        chosen = recipe(arguments={"dropouts": dropouts})
        trainee = begin(chosen, 0, torch.device("cpu"), 336)
        native.train_epoch_compiled(trainee, chosen, digits.train)
        states.append(torch.get_rng_state())
    torch.manual_seed(0)
    chosen.build_network()
    torch.randperm(336)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert not torch.equal(torch.get_rng_state(), states[1])


def rows_of(run):
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in run.record.epochs]


def test_a_run_is_the_same_again_and_another_with_another_seed(digits, tmp_path):
    chosen = Recipe(network=TwoLayerHead, batch_size=32, epochs=2, compiled=True)
    runs = [
        fit(chosen, digits, rung="t", seed=seed, device="cpu", run_dir=tmp_path / name)
        for name, seed in (("one", 1), ("again", 1), ("other", 2))
    ]
    assert [run.record.versions["trainer"] for run in runs] == ["lab/native"] * 3
    assert rows_of(runs[0]) == rows_of(runs[1]) != rows_of(runs[2])


@pytest.mark.parametrize("stopped", [1, 2])
def test_a_run_that_was_stopped_goes_on_with_the_same_bits(stopped, digits, tmp_path, monkeypatch):
    chosen = Recipe(network=TwoLayerHead, batch_size=32, epochs=3, compiled=True)
    whole = fit(chosen, digits, rung="t", device="cpu", run_dir=tmp_path / "whole")

    class Enough(Exception):
        pass

    shown = progress.EpochLines.show

    def show(self, row):
        shown(self, row)
        if row["epoch"] == stopped:
            raise Enough

    with monkeypatch.context() as patch:
        patch.setattr(progress.EpochLines, "show", show)
        with pytest.raises(Enough):
            fit(chosen, digits, rung="t", device="cpu", run_dir=tmp_path / "parts")
    resumed = fit(chosen, digits, rung="t", device="cpu", run_dir=tmp_path / "parts")
    assert rows_of(whole) == rows_of(resumed)
    states = whole.network.state_dict(), resumed.network.state_dict()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_the_same_dropout_may_stand_in_two_places(digits):
    class Shared(nn.Sequential):
        def __init__(self):
            dropout = nn.Dropout(0.2)
            super().__init__(nn.Conv2d(1, 4, 3), dropout, nn.Conv2d(4, 4, 1), dropout, nn.AvgPool2d(26))
            self.extend([project(4, 10), nn.Flatten()])

    assert why_not(Recipe(network=Shared, batch_size=32), digits) is None


def test_dropout_that_is_put_elsewhere_is_found_out(digits, monkeypatch):
    """Torch's network is shown the masks, so a mask that is not the trainer's does not agree."""
    chosen = recipe(arguments={"dropouts": [0.3, 0.3, 0.3]})
    assert why_not(chosen, digits) is None
    masks = Compiled.masks
    monkeypatch.setattr(Compiled, "masks", lambda self, count: [mask.roll(1, 0) for mask in masks(self, count)])
    assert "its loss of the first images" in why_not(chosen, digits)
