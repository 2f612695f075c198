"""Any value through every door: it is accepted as meant, or refused by name before anything is trained."""

import ctypes
import json
import keyword
import os
import re
import tempfile
from dataclasses import fields, replace
from pathlib import Path

import nbformat
import pytest
import torch
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from papermill.cli import papermill

import model
from lab.ladders.rungs import find_rungs
from lab.run.fit import fit
from lab.run.parameters import RULES, check_parameters, check_values
from lab.run.trainable import require_trainable
from lab.search.notation import Notation
from lab.training.augment import ColorJitter, RandomAffine, RandomRotation
from lab.training.data import Digits, Split, load_digits
from lab.training.loop import TrainingDiverged
from lab.training.recipe import Recipe
from lab.training.schedules import CosineCycle, LinearCycle, OneCycleLR, ReduceLROnPlateau, StepLR, build_schedule

RUNG = find_rungs(["a07"])[0]
BASE = {"network": model.NormedSkeleton, "epochs": 1, "batch_size": 12}
LIKELY = [
    "false",
    "nan",
    "inf",
    "0",
    "-1",
    "1e3",
    "",
    "None",
    "cpu",
    "sample",
    "SGD",
    "nll",
    "nearest",
    "NaN",
    True,
    -0.0,
]

anything = st.one_of(
    st.sampled_from(LIKELY),
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-2, 5),
    st.sampled_from([10**30, -(10**400), 2**63, 2**64]),
    st.floats(),
    st.floats(0, 1),
    st.text(max_size=8),
    st.lists(st.integers(-1, 2), max_size=3),
    st.tuples(st.floats(), st.floats()),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=1),
)
EXAMPLES = int(os.environ.get("EXAMPLES", 0))  # so many new ones; without it the same 200 each time
searched = settings(
    deadline=None,
    max_examples=EXAMPLES or 200,
    derandomize=not EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def same(one, other):
    """Equal in type and value, NaN included."""
    return type(one) is type(other) and repr(one) == repr(other)


# ------------------------------------------------------------------------------ through the API


@searched
@given(st.sampled_from(sorted(RULES)), anything)
def test_a_parameter_is_usable_or_refused_by_name(name, value):
    try:
        check_values({name: value})
    except ValueError as error:
        assert str(error).startswith(f"parameter {name}={value!r} must be ")
        return
    assert same(json.loads(json.dumps(value)), value)  # as it will stand in the record
    if name == "seed":
        torch.Generator().manual_seed(value)
    elif name == "run_dir":
        Path(tempfile.gettempdir(), value)
    elif name == "epochs":
        Recipe(**BASE | {"epochs": value})


@searched
@given(st.text(min_size=1, max_size=12), anything)
def test_a_name_that_does_not_exist_is_refused(name, value):
    assume(name not in RULES)
    with pytest.raises(ValueError, match=re.escape(f"parameter {name}={value!r} does not exist")):
        check_values({name: value})


@pytest.fixture(scope="module", autouse=True)
def _subnormal_numbers():
    """The compiled trainer, once loaded, lets its process take subnormal numbers for zero; here they count."""
    ctypes.CDLL(None).fesetenv(ctypes.c_void_p(-1))  # FE_DFL_ENV of glibc


@pytest.fixture(scope="module")
def few():
    sample = load_digits("sample")
    return Digits("sample", sample.sha256, sample.train.first(36), sample.test.first(10))


@searched
@given(st.sampled_from([item.name for item in fields(Recipe) if item.name != "arguments"]), anything)
@example("learning_rate", 10**18)
@example("weight_decay", 10**18)
@example("weight_decay", 2**64)
@example("held_out", 1.5)
@example("held_out", 36)
@example("batch_size", 1_000_000)
@example("momentum", 0.9999999999999999)
@example("augmentation", (RandomRotation,))
@example("augmentation", (torch.neg,))
@example("augmentation", [0])
@example("hardest", 0.5)
@example("hardest", 1)
def test_a_recipe_trains_diverges_or_is_refused_by_name(few, tmp_path_factory, name, value):
    try:
        recipe = Recipe(**BASE | {name: value})
        assume(recipe.epochs < 4)
        run = fit(recipe, few, rung="t00", device="cpu", run_dir=tmp_path_factory.mktemp("runs"))
    except ValueError as error:
        kept = tuple(value) if name == "augmentation" and isinstance(value, list) else value  # as a Recipe keeps it
        assert re.search(rf"{name}={re.escape(repr(kept))} (must be|leaves none)|images in batches of", str(error))
    except TrainingDiverged as error:
        assert re.search(r"epoch 1: .* at learning rate \d", str(error))
    else:
        json.dumps(run.record.recipe, allow_nan=False)
        assert len(run.record.epochs) == recipe.epochs


@searched
@given(st.sampled_from(["recipe", "digits", "rung", "seed", "device", "threads", "run_dir"]), anything)
@example("recipe", "a03")
@example("digits", "sample")
@example("rung", "../outside")
@example("rung", "")
@example("run_dir", "model.py")
@example("run_dir", "a\0b")
@example("threads", 10**6)
def test_fit_refuses_what_is_not_its_arguments_kind_by_name(few, name, value):
    threads = torch.get_num_threads()
    assume(not (name == "threads" and type(value) is int and 2 < value <= 1024))
    assume(not (name == "run_dir" and isinstance(value, str)) or value in ("model.py", "a\0b", ""))
    try:
        with tempfile.TemporaryDirectory() as folder:
            knobs = {"recipe": Recipe(**BASE), "digits": few, "rung": "t00", "device": "cpu", "run_dir": folder}
            record = fit(**knobs | {name: value}).record
            assert Path(folder, record.rung, f"seed{record.seed}.json").exists() or name == "run_dir"
    except (ValueError, OSError, RuntimeError) as error:
        assert re.search(f"{name}={re.escape(repr(value))}|cannot write .*{re.escape(str(value))}", str(error))
    else:
        assert name != "seed" or same(record.seed, value)
    finally:
        torch.set_num_threads(threads)


@searched
@given(anything)
@example(1)
@example(-0.5)
@example(0.1)
def test_dropout_drops_that_share_or_is_refused_by_name(few, value):
    recipe = Recipe(**BASE | {"arguments": {"dropout": value}})
    try:
        require_trainable(recipe, few)
    except ValueError as error:
        assert f"ConvUnit: dropout={value!r} must be a number at least 0 and below 1" in str(error)
    else:
        shares = {layer.p for layer in recipe.specimen().modules() if isinstance(layer, torch.nn.Dropout)}
        assert shares == ({value} if value else set())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arguments": {"dropuot": 0.1}}, "arguments={'dropuot': 0.1} cannot be used .*unexpected keyword"),
        (
            {"network": Notation, "arguments": {"layers": "c8 M M M M M G"}},
            "cannot be used on images of 28x28.*too small",
        ),
        ({"network": torch.nn.Flatten}, r"puts out \(2, 784\) for two images, not \(2, 10\)"),
        ({"loss": "nll"}, "loss='nll' must be 'cross_entropy' for NormedSkeleton, which ends in logits"),
    ],
)
def test_a_network_that_cannot_do_the_task_is_refused(few, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        fit(Recipe(**BASE | changes), few, rung="t00", run_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_images_and_labels_have_to_belong_together(few):
    images, labels = few.train.images, few.train.labels
    for wrong in ((images, labels[:-1]), (images / 255, labels), (images[:, 0], labels), (images, labels.float())):
        with pytest.raises(ValueError, match="Split: images must be uint8 .* found "):
            Split(*wrong)
    for empty in ({"train": few.train.first(0)}, {"test": few.test.first(0)}):
        with pytest.raises(ValueError, match="leave nothing to train or to test on"):
            require_trainable(Recipe(**BASE), replace(few, **empty))


@searched
@given(st.sampled_from(["source", "root", "train_limit"]), anything)
@example("train_limit", "5")
@example("train_limit", 2.5)
@example("train_limit", True)
@example("train_limit", 4_000)
@example("train_limit", 4_001)
def test_data_is_loaded_as_meant_or_refused_by_name(few, name, value):
    assume(not (name == "source" and value in ("auto", "mnist")))
    try:
        digits = load_digits(**{"source": "sample"} | {name: value})
    except ValueError as error:
        assert str(error).startswith(f"load_digits: {name}={value!r} must be ")
    else:
        assert digits.sha256 == few.sha256
        assert len(digits.train) == (value if name == "train_limit" and value else 4_000)


SCHEDULES = {
    StepLR: {"step_size": 1},
    OneCycleLR: {"max_learning_rate": 0.1},
    CosineCycle: {"max_learning_rate": 0.1},
    LinearCycle: {"max_learning_rate": 0.1},
    ReduceLROnPlateau: {},
}
TRANSFORMS = {RandomRotation: {"degrees": 5}, RandomAffine: {"degrees": 5}, ColorJitter: {}}


@searched
@given(st.sampled_from([(kind, item.name) for kind in SCHEDULES for item in fields(kind)]), anything)
@example((CosineCycle, "start"), 5e-324)
@example((OneCycleLR, "warmup"), 0)
@example((OneCycleLR, "warmup"), 0.1)  # a rise of one of the ten batches, which torch cannot do
@example((StepLR, "gamma"), 1e18)
def test_a_schedule_gives_finite_rates_or_is_refused_by_name(setting, value):
    kind, name = setting
    try:
        recipe = Recipe(**BASE, schedule=kind(**SCHEDULES[kind] | {name: value}), held_out=5)
        optimizer = recipe.build_optimizer(recipe.build_network())
        schedule = build_schedule(recipe, optimizer, 10)
    except ValueError as error:
        assert re.search(rf"(Rate|LR|Cycle|Plateau|schedule): {name}={re.escape(repr(value))} (must be|of)", str(error))
        return
    for _ in range(9):
        optimizer.step()
        schedule.step(*[1.0] * (kind is ReduceLROnPlateau))
        assert 0 <= optimizer.param_groups[0]["lr"] < float("inf")


@searched
@given(
    st.sampled_from(
        [(kind, item.name) for kind in (RandomRotation, RandomAffine, ColorJitter) for item in fields(kind)]
    ),
    anything,
)
@example((RandomAffine, "scale"), (0.1, 10))
@example((RandomAffine, "shear"), 89.99999999999999)
@example((ColorJitter, "contrast"), 10)
def test_a_transform_keeps_grey_values_or_is_refused_by_name(setting, value):
    kind, name = setting
    try:
        transform = kind(**TRANSFORMS[kind] | {name: value})
    except ValueError as error:
        assert str(error).startswith(f"{kind.__name__}: {name}={value!r} must be ")
        return
    images = transform(torch.rand(6, 1, 28, 28))
    assert images.shape == (6, 1, 28, 28)
    assert ((images >= 0) & (images <= 1)).all()


# --------------------------------------------------------------------------- through papermill


def prepare(folder, *arguments):
    """What papermill's command line would run, without running it: the cells of the notebook, or its error."""
    output = folder / "out.ipynb"
    output.unlink(missing_ok=True)
    command = [str(RUNG.path), str(output), "--prepare-only", "--no-progress-bar", "--log-level", "ERROR", *arguments]
    done = CliRunner().invoke(papermill, command)
    if done.exit_code:
        return None, f"{done.output} {done.exception!r}"
    return nbformat.read(output, as_version=4).cells, None


def read_parameters(cells):
    """Run the parameters cell and the cell that papermill put behind it, then check, as the notebook does."""
    sources = [
        cell.source for cell in cells if {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", []))
    ]
    scope = {"In": ["", *sources]}
    for source in sources:
        exec(source, scope)
    check_parameters(scope)
    return {name: scope[name] for name in RULES}


def as_p(text):
    """What papermill's documentation says of `-p`: None, booleans and numbers are recognised, the rest is text."""
    words = {"None": None, "True": True, "False": False}
    if text in words:
        return words[text]
    for kind in int, float:
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def through_file(folder, name, value):
    path = folder / "parameters.yaml"
    path.write_text(yaml.safe_dump({name: value}))
    return "-f", str(path)


DOORS = {  # what is typed, and what is meant by it
    "p": lambda folder, name, value: (("-p", name, str(value)), as_p(str(value))),
    "r": lambda folder, name, value: (("-r", name, str(value)), str(value)),
    "y": lambda folder, name, value: (("-y", yaml.safe_dump({name: value})), value),
    "f": lambda folder, name, value: (through_file(folder, name, value), value),
}
# what a shell can pass on: no NUL, no lone surrogates
typed = st.one_of(
    st.sampled_from(LIKELY),
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.integers(-2, 5),
    st.floats(),
    st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=8),
)


@pytest.mark.parametrize("door", DOORS)
@settings(searched, max_examples=40)
@given(name=st.sampled_from(sorted(RULES)), value=typed)
@example(name="threads", value="false")
@example(name="epochs", value=float("nan"))
@example(name="epochs", value=float("inf"))
@example(name="seed", value=10**30)
@example(name="train_limit", value=-1)
def test_papermill_hands_on_what_was_meant_or_the_notebook_refuses_it(tmp_path, door, name, value):
    arguments, meant = DOORS[door](tmp_path, name, value)
    cells, error = prepare(tmp_path, *arguments)
    if error:  # papermill's own refusal
        assert name in error
        return
    try:
        found = read_parameters(cells)
    except ValueError as refusal:
        assert str(refusal).startswith(f"parameter {name}={meant!r} must be ")
        with pytest.raises(ValueError, match="must be"):
            check_values({name: meant})
    else:
        assert same(found[name], meant)
        assert {key: found[key] for key in found if key != name} == {
            key: value for key, value in RUNG.defaults().items() if key != name
        }


@pytest.mark.parametrize("door", DOORS)
@settings(searched, max_examples=15)
@given(
    name=st.from_regex(r"[a-z_]{1,10}", fullmatch=True).filter(lambda word: not keyword.iskeyword(word)),
    value=st.integers(0, 9),
)
@example(name="sed", value=3)
@example(name="Epochs", value=3)
def test_misspelt_names_through_every_door(tmp_path, door, name, value):
    assume(name not in RULES)
    arguments, meant = DOORS[door](tmp_path, name, value)
    cells, _ = prepare(tmp_path, *arguments)
    with pytest.raises(ValueError, match=re.escape(f"parameter {name}={meant!r} does not exist")):
        read_parameters(cells)
