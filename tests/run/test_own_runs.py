"""A reader's own network: every change counts or is refused by name, and pages treat it like a published one."""

import importlib
import json
import random
import sys
import textwrap
from dataclasses import dataclass, replace

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from torch import nn
from torch.nn import functional as F

import model
import utils
from lab.files import ROOT
from lab.ladders.rungs import find_rungs
from lab.run.record import RunRecord
from lab.run.results import load_records, why_not_published
from lab.search import notation
from lab.search.notation import Notation

SETUP = f"""
import contextlib, io, sys
sys.path.insert(0, {str(ROOT)!r})
import torch
from torch import nn
from torch.nn import functional as F
from functools import cache, partial
import model, utils
digits = utils.load_digits("sample", train_limit=256)

def fit(network, name="mine", **settings):
    \"\"\"What a run prints, how it ended, and its network.\"\"\"
    settings = {{"epochs": 2, "batch_size": 64, "learning_rate": 0.05}} | settings
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        recipe = utils.Recipe(network=network, **settings)
        run = utils.fit(recipe, digits, rung=name, device="cpu", run_dir=RUN_DIR)
    return printed.getvalue(), [row["train_loss"] for row in run.record.epochs], run
"""
NET = """
WIDTHS = [4, 6]
ACTIVATION = partial(nn.LeakyReLU, 0.1)
SQUASH = lambda x: torch.tanh(x)

@cache
def head(width):
    return HEADS[0](width, 10)
HEADS = [nn.Linear]

class Block(nn.Module):
    def __init__(self, before, width):
        super().__init__()
        self.convolution, self.activation = nn.Conv2d(before, width, 3), ACTIVATION()

    def forward(self, x):
        return SQUASH(self.activation(self.convolution(x)))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(Block(1, WIDTHS[0]), Block(WIDTHS[0], WIDTHS[1]))
        self.head = nn.Linear(WIDTHS[1], 10)

    def forward(self, x):
        return self.head(F.relu(self.body(x)).mean((2, 3)))
"""
CHANGES = {
    "the class": ("F.relu(self.body(x))", "F.silu(self.body(x))"),
    "a list": ("[4, 6]", "[4, 7]"),
    "a partial": ("nn.LeakyReLU, 0.1", "nn.LeakyReLU, 0.3"),
    "a lambda": ("torch.tanh(x)", "torch.sin(x)"),
    "a block": ("SQUASH(self.activation(self.convolution(x)))", "self.activation(SQUASH(self.convolution(x)))"),
    "what acts in eval mode only": (".mean((2, 3))", ".mean((2, 3)) * (1 if self.training else 2)"),
}


def run_cells(tmp_path, *cells):
    """Execute cells one after the other in a kernel; what goes wrong there goes wrong here."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    return book


@pytest.mark.notebook
def test_every_change_of_a_cell_trains_anew_and_nothing_is_lost(tmp_path):
    cells = [f"RUN_DIR = {str(tmp_path)!r}", SETUP, NET, "first = fit(Net)", "assert not first[2].read_back"]
    for old, new in CHANGES.values():
        assert NET.count(old) == 1
        cells += [
            NET.replace(old, new),
            "second = fit(Net)",
            "assert not second[2].read_back and 'trains from the start' in second[0], second[0]",
        ]
        cells += [NET, "again = fit(Net)", "assert again[2].read_back and again[1] == first[1], again[0]"]
    run_cells(tmp_path, *cells)
    records = sorted(path.name for path in (tmp_path / "mine").glob("*.json"))
    assert len(records) == 1 + len(CHANGES)
    assert records.count("seed0.json") == 1


# ------------------------------------------------------------------------------ what no cell shows


@pytest.fixture(scope="module")
def digits():
    return utils.load_digits("sample", train_limit=256)


@pytest.fixture
def fit(digits, tmp_path, capsys):
    """Train for two epochs; whether it was read back, and the run."""

    def fit(network, rung="mine", run_dir=tmp_path, **settings):
        settings = {"epochs": 2, "batch_size": 64, "learning_rate": 0.05} | settings
        run = utils.fit(utils.Recipe(network=network, **settings), digits, rung=rung, device="cpu", run_dir=run_dir)
        return run.read_back == len(run.record.epochs), run

    return fit


def losses(run):
    return [(row["train_loss"], row["test_loss"]) for row in run.record.epochs]


def made_in_a_function(activation):
    class Net(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Conv2d(1, 4, 5), activation(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))

    return Net


def made_from_text(activation):
    scope = {"made_in_a_function": made_in_a_function, "nn": nn}
    exec(f"class Net(made_in_a_function(nn.ReLU)):\n    def forward(self, x):\n        return {activation}", scope)
    return scope["Net"]


def test_a_class_made_in_a_function_is_known_by_what_it_closes_over(fit):
    first = fit(made_in_a_function(nn.ReLU))[1]
    assert fit(made_in_a_function(nn.ReLU))[0]
    read, second = fit(made_in_a_function(nn.Sigmoid))
    assert not read
    assert losses(second) != losses(first)
    assert fit(made_in_a_function(nn.ReLU))[0]


def test_where_no_source_is_to_be_had_the_first_batches_decide(fit):
    first = fit(made_from_text("nn.Sequential.forward(self, x)"))[1]
    assert "there is no source" in first.record.code_digest
    assert fit(made_from_text("nn.Sequential.forward(self, x)"))[0]
    read, second = fit(made_from_text("2 * nn.Sequential.forward(self, x)"))
    assert (read, losses(second) != losses(first)) == (False, True)


def test_a_table_of_the_project_that_is_changed_counts(fit, monkeypatch):
    settings = {"arguments": {"layers": "c4 M c6 G"}}
    first = fit(Notation, **settings)[1]
    assert fit(Notation, **settings)[0]
    monkeypatch.setitem(notation.POOLS, "M", lambda: nn.AvgPool2d(2))
    read, second = fit(Notation, **settings)
    assert (read, losses(second) != losses(first)) == (False, True)
    monkeypatch.undo()
    assert fit(Notation, **settings)[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [("nn.ReLU", "nn.Sigmoid"), ("WIDTH = 4", "WIDTH = 5"), ("kernel + 2", "kernel + 4")],
)
def test_a_module_that_is_edited_and_loaded_again_counts(fit, tmp_path, monkeypatch, old, new):
    source = """
        from torch import nn
        WIDTH = 4
        def side(kernel):
            return kernel + 2
        class Net(nn.Sequential):
            def __init__(self):
                body = nn.Conv2d(1, WIDTH, side(1)), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
                super().__init__(*body, nn.Linear(WIDTH, 10))
    """
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "my_layers.py"
    path.write_text(textwrap.dedent(source))
    importlib.invalidate_caches()
    module = importlib.import_module("my_layers")
    try:
        fit(module.Net)
        path.write_text(textwrap.dedent(source).replace(old, new) + "# longer, so that it is compiled anew\n")
        assert fit(module.Net)[0]  # the file is another one, what runs is not
        module = importlib.reload(module)
        read, run = fit(module.Net)
        assert not read
        assert losses(run) == losses(fit(module.Net, run_dir=tmp_path / "afresh")[1])
    finally:
        del sys.modules["my_layers"]


def test_what_a_module_remembers_outside_its_state_is_never_resumed(fit, capsys):
    class Counting(model.NormedSkeleton):
        batches = 0

        def forward(self, images):
            self.batches += self.training
            return super().forward(images)

    first = fit(Counting)[1]
    read, second = fit(Counting)
    assert (read, losses(second)) == (False, losses(first))


class Noisy(model.NormedSkeleton):
    """Its noise comes from somewhere that a checkpoint does not hold."""

    def __init__(self, source):
        super().__init__()
        self.source, self.own = source, np.random.default_rng(0)
        self.generator, self.counts = torch.Generator().manual_seed(0), [0]

    def forward(self, x):
        if self.training:
            Noisy.steps += 1
            self.counts[0] += 1
            noise = {
                "numpy": lambda: np.random.rand(),  # noqa: NPY002
                "python": random.random,
                "an own generator": self.own.random,
                "one of torch": lambda: torch.rand((), generator=self.generator).item(),
            }
            x = x * (1 + noise.get(self.source, lambda: 0.1 * self.counts[0])())
        return super().forward(x)

    steps = 0


@pytest.mark.parametrize("source", ["numpy", "python", "an own generator", "one of torch", "a list"])
def test_a_run_that_no_checkpoint_holds_begins_anew_and_says_so(fit, capsys, source):
    results = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        read, run = fit(Noisy, arguments={"source": source})
        assert not read
        results.append(losses(run))
    assert results[0] == results[1] or source in ("numpy", "python")


@dataclass
class Growing:
    """An augmentation with a state."""

    steps: int = 0

    def __call__(self, images):
        self.steps += 1
        return images * (1 - 0.01 * self.steps)


def test_an_augmentation_with_a_state_is_never_resumed(digits, tmp_path, capsys):
    runs = []
    for _ in range(2):
        recipe = utils.Recipe(network=model.NormedSkeleton, epochs=2, batch_size=64, augmentation=[Growing()])
        runs.append(utils.fit(recipe, digits, rung="mine", device="cpu", run_dir=tmp_path))
        assert "an augmentation changes in training" in capsys.readouterr().out
    assert losses(runs[0]) == losses(runs[1])


class WithExtra(model.NormedSkeleton):
    """torch's own way to keep a state that is no tensor."""

    def get_extra_state(self):
        return {"calls": 3}

    def set_extra_state(self, state):
        assert state == {"calls": 3}


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows, self.head = nn.GRU(28, 8, batch_first=True), nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.rows(x.squeeze(1))[0][:, -1])


@pytest.mark.parametrize("network", [WithExtra, Recurrent])
def test_what_torch_itself_keeps_is_resumed(fit, network):
    run = fit(network)[1]
    read, again = fit(network)
    assert (read, losses(again)) == (True, losses(run))


# ------------------------------------------------------------------------------- networks of all kinds


class LogSoftmax(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.head = nn.Conv2d(1, 4, 28), nn.Linear(4, 10)

    def forward(self, x):
        return F.log_softmax(self.head(F.relu(self.convolution(x)).view(-1, 4)), dim=1)


class HeadFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(4, 10, 1)
        self.body = nn.Conv2d(1, 4, 5)

    def forward(self, x):
        return self.head(F.relu(self.body(x))).mean((2, 3))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
        self.third.weight = self.second.weight
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        x = self.third(self.second(self.second(self.first(x))))
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("network", [LogSoftmax, HeadFirst, Tied])
@pytest.mark.parametrize("settings", [{}, {"optimizer": "Muon", "nesterov": True}, {"average": 0.9}])
def test_learners_networks_train_and_are_read_back(fit, network, settings):
    read, run = fit(network, **settings)
    assert not read
    read, again = fit(network, **settings)
    assert (read, losses(again)) == (True, losses(run))
    assert run.record.parameters == sum(weight.numel() for weight in network().parameters())
    mistakes = utils.find_mistakes(run)
    assert mistakes.matrix.sum() == len(run.digits.test)
    assert list(utils.report(run).index) == ["yours, seed 0, sample (256 images), 2 epochs"]


class View(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 4, 5), nn.MaxPool2d(4), nn.Linear(4 * 36, 10))

    def forward(self, x):
        return self[2](self[1](self[0](x)).view(len(x), -1))


class FixedBatch(View):
    def forward(self, x):
        return self[2](self[1](self[0](x)).reshape(64, -1))


class Pair(View):
    def forward(self, x):
        return x, x


class Lazy(nn.Sequential):
    def __init__(self):
        super().__init__(nn.LazyConv2d(4, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(10))


class Weightless(nn.Sequential):
    def __init__(self):
        super().__init__(nn.AdaptiveAvgPool2d((1, 10)), nn.Flatten())


class Misspelt(View):
    def forward(self, x):
        return self.colvolution(x)


class FailsInTraining(View):
    def forward(self, x):
        return {False: x[:, 0, 0, :10]}[self.training]


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (View, "network=View .*use x.flatten"),
        (FixedBatch, "network=FixedBatch .*invalid for input"),
        (Pair, "network=Pair .*tuple"),
        (Lazy, "Lazy"),
        (Weightless, "network=Weightless .*grad"),
        (Misspelt, "network=Misspelt .*colvolution"),
        (FailsInTraining, "network=FailsInTraining .*KeyError"),
    ],
)
def test_what_cannot_train_is_refused_before_it_does(fit, tmp_path, network, words):
    with pytest.raises(ValueError, match=words):
        fit(network)
    assert not (tmp_path / "mine").exists()


def test_an_instance_is_refused_without_being_printed():
    with pytest.raises(ValueError, match="must be a class, not an instance: network=NormedSkeleton") as caught:
        utils.Recipe(network=model.NormedSkeleton())
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (
            lambda: Cropping(),
            r"augmentation: Cropping\(\) must give images \(2, 1, 28, 28\), and gives \(2, 1, 24, 24\)",
        ),
        (lambda: Forgetful(), r"augmentation: Forgetful\(\) must give images .* gives NoneType"),
        (lambda: Failing(), r"augmentation: Failing\(\) fails on images .*ZeroDivisionError"),
    ],
)
def test_a_transform_that_cannot_work_is_named(digits, transform, words):
    with pytest.raises(ValueError, match=words):
        utils.fit(utils.Recipe(network=model.NormedSkeleton, augmentation=(transform(),)), digits, rung="mine")


@dataclass(frozen=True)
class Cropping:
    def __call__(self, images):
        return images[:, :, 2:-2, 2:-2]


@dataclass(frozen=True)
class Forgetful:
    def __call__(self, images):
        images.mul_(0.5)


@dataclass(frozen=True)
class Failing:
    def __call__(self, images):
        return images / (1 // 0)


@pytest.mark.parametrize("value", [nn.ReLU(), {1, 2}, float("nan"), np.zeros(2)])
def test_arguments_that_no_record_can_hold_are_refused(fit, value):
    class Net(made_in_a_function(nn.ReLU)):
        def __init__(self, setting):
            super().__init__()

    with pytest.raises(ValueError, match="arguments={'setting': .*cannot be written into a record"):
        fit(Net, arguments={"setting": value})


def test_numbers_of_numpy_become_plain_and_are_read_back(fit):
    numbers = {"epochs": np.int64(2), "learning_rate": np.float32(0.0625), "momentum": np.float64(0.5)}
    arguments = {"dropout": np.float64(0.25)}
    run = fit(
        model.NormedSkeleton, arguments=arguments, schedule=utils.StepLR(np.int32(1), np.float32(0.5)), **numbers
    )[1]
    text = json.dumps(run.record.recipe)
    assert json.loads(text)["schedule"] == {"name": "StepLR", "step_size": 1, "gamma": 0.5}
    assert fit(model.NormedSkeleton, arguments=arguments, schedule=utils.StepLR(1, 0.5), **numbers)[0]


def test_a_cycle_over_a_single_batch_is_refused(fit):
    with pytest.raises(ValueError, match="single batch"):
        fit(model.NormedSkeleton, epochs=1, batch_size=256, schedule=utils.OneCycleLR(0.1))


# ------------------------------------------------------------------------------------------- on the page


def test_another_recipe_under_a_published_name_is_kept_apart(fit, digits, tmp_path):
    published = replace(find_rungs(["a03"])[0].recipe, epochs=2)
    runs = [
        utils.fit(recipe, digits, rung="a03", device="cpu", run_dir=tmp_path)
        for recipe in (published, replace(published, learning_rate=0.02))
    ]
    for folder, run in zip(("a03", "a03-own"), runs, strict=True):
        assert RunRecord.read(tmp_path / folder / "seed0.json") == run.record
    whole = load_records("a03")[0]
    assert why_not_published(whole) is None
    for change, reason in (
        ({"recipe": runs[1].record.recipe}, "recipe is not the published one"),
        ({"dataset": "sample"}, "made on sample"),
        ({"code_digest": "0" * 64}, "code that decides its numbers is not the published one"),
        ({"code_digest": "untraceable: Net has no source"}, "cannot be followed: Net has no source"),
        ({"rung": "mine"}, "nothing is published as mine"),
    ):
        epochs = whole.epochs[: change.get("recipe", whole.recipe)["epochs"]]
        assert reason in why_not_published(replace(whole, **change, epochs=epochs, errors=None))


def test_a_run_of_ones_own_stands_under_the_published_rows(fit, capsys):
    class NormedSkeleton(model.NormedSkeleton):  # the name is that of the published one
        pass

    run = fit(NormedSkeleton, rung="a03")[1]
    table = utils.report(run)
    assert list(table.index) == ["a00", "a01", "a02", "a03", "yours, seed 0, sample (256 images), 2 epochs"]
    assert table["parameters"].iloc[-1] == "5,088"
    printed = capsys.readouterr().out
    assert "mean of the last 2 epochs" in printed
    assert "five" not in printed
    both = utils.compare("a03", run, [run, replace(run, record=replace(run.record, seed=1))])
    assert list(both.index)[0] == "a03"
    assert both.index[2] == "yours, seeds 0, 1, sample (256 images), 2 epochs"
    assert both["against a03, points"].tolist()[1:] == ["other data", "other data"]


def changed_lines(text):
    return [line for line in text.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def test_a_recipe_of_ones_own_is_compared_with_the_published_one(capsys):
    published = find_rungs(["a03"])[0].recipe
    utils.show_change("a03", replace(published, learning_rate=0.02))
    assert changed_lines(capsys.readouterr().out) == ["-learning_rate = 0.01", "+learning_rate = 0.02"]
    utils.show_change("a03", replace(published, network=HeadFirst))
    printed = capsys.readouterr().out
    assert "+    def __init__(self):" in printed
    assert "-class NormedSkeleton(nn.Sequential):" in printed
    utils.show_change("a03", replace(published, network=type("Bare", (model.NormedSkeleton,), {})))
    assert "+  (0): ConvUnit(" in capsys.readouterr().out  # no source: the module itself


def test_sides_without_published_runs_can_be_compared(fit):
    runs = [fit(network, rung=name)[1] for network, name in ((HeadFirst, "mine"), (Tied, "other"))]
    table = utils.compare(*runs)
    made = "seed 0, sample (256 images), 2 epochs"
    assert list(table.index) == [f"yours, {made}", f"yours (2), {made}"]
    assert table[f"against yours, {made}, points"].iloc[1].startswith(("+", "-"))
