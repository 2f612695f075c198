"""What a rung puts on the page besides figures: its diff, its layers, its results."""

import ast
import contextlib
import copy
import difflib
import inspect
import io
import platform
import re
import textwrap
from dataclasses import dataclass

import pandas as pd
import torch

from lab.claims import compare_runs, format_difference
from lab.data import CLASSES
from lab.receptive_field import acting_table, layer_table, receptive_field
from lab.recipe import WITH_MOMENTUM
from lab.results import load_records, why_refused
from lab.rungs import find_rungs
from lab.training import prepare
from lab.watch import Untraceable

IMAGE_SHAPE = (1, 28, 28)


def show_change(rung_id, recipe):
    """Print what this rung changes: a unified diff of network and recipe against the rung before it.

    The first rung of a ladder has nothing to be compared with, so its network and recipe are printed whole.
    """
    previous = _find(rung_id).previous
    after = describe(recipe)
    if previous is None:
        print(after)
        return
    before = describe(previous.recipe)
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), previous.id, rung_id, n=1, lineterm="")
    print("\n".join(line for line in lines if not line.startswith("@@")))


def describe(recipe):
    """A recipe as text: the source of its network without the docstring, then every setting, one a line."""
    settings = recipe.as_dict()
    settings["network"] = _call({"name": settings["network"], **settings.pop("arguments")})
    for name in ("betas",) if settings["optimizer"] in WITH_MOMENTUM else ("momentum", "nesterov"):
        settings.pop(name)  # it has no effect
    lines = []
    for name, value in settings.items():
        parts = value if isinstance(value, list) and value and isinstance(value[0], dict) else [value]
        lines += [f"{name} = {_call(part)}" for part in parts]
    return f"{_source_without_docstring(recipe.network)}\n\n" + "\n".join(lines)


def _call(value):
    """Write a dictionary with a name as the call that made it."""
    if isinstance(value, dict) and "name" in value:
        return f"{value['name']}({', '.join(f'{key}={part}' for key, part in value.items() if key != 'name')})"
    return value


def _source_without_docstring(network):
    lines = textwrap.dedent(inspect.getsource(network)).splitlines()
    docstring = ast.parse("\n".join(lines)).body[0].body[0]
    rest = lines[: docstring.lineno - 1] + lines[docstring.end_lineno :]
    return "\n".join(line for line in rest if line.strip())


def show_layers(recipe):
    """Print torchsummary's table of the network, and return its receptive fields as a table.

    Returns: `layer_table`; `acting_table` if the receptive fields cannot be traced, after a line that says why.
    Raises: ValueError naming the network, if it does not work on images.
    """
    _print_summary(recipe)
    try:
        return layer_table(recipe.specimen())
    except Untraceable as error:
        print(f"Without receptive fields: {error}.")
        return acting_table(recipe.specimen())


def _print_summary(recipe):
    """Print torchsummary's table, or why there is none, and the number of parameters where it counts another.

    torchsummary pushes a random batch through the network in whatever mode it is in, which would change
    BatchNorm's statistics and the random numbers of the training to come; here it gets a specimen in eval mode.
    It also shows a layer that acts several times once more for every place, each time; it gets a copy for each place.
    """
    from torchsummary import summary

    text = io.StringIO()
    try:
        with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(text):
            summary(_with_copies(recipe.specimen()), IMAGE_SHAPE, device="cpu")
    except Exception as error:  # of any kind: it takes much for granted
        print(f"torchsummary cannot show {recipe.network.__name__}: {type(error).__name__}: {error}")
        return
    print(text.getvalue().strip())
    counted = int(re.search(r"Total params: ([\d,]+)", text.getvalue())[1].replace(",", ""))
    if counted > recipe.parameters:
        print(f"Above, weights that act in several places are counted in each; they are {recipe.parameters:,} in all.")
    if counted < recipe.parameters:
        print(f"Above, only weights and biases of layers that act are counted; they are {recipe.parameters:,} in all.")


def _with_copies(network):
    """The network with a module of its own in every place where the same one acts."""
    seen = set()
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child in seen:
                setattr(parent, name, copy.deepcopy(child))
            seen.add(child)
    return network


def report(run):
    """Show this run beside the published ones, and the ladder up to here. Returns a table."""
    record = run.record
    print(f"seed {record.seed}: {record.last5:.2%} mean of the last five epochs, {record.final:.2%} at the end", end="")
    print(f" ({record.epochs[-1]['test_total'] - record.epochs[-1]['test_correct']} errors)")
    print(f"clean training accuracy {record.clean_train:.2%}, on {record.clean_train_total:,} images")
    print(f"made with python {platform.python_version()}, torch {torch.__version__}, on {record.device}, ", end="")
    print(f"{record.threads} thread(s), {record.train_seconds:.1f} s of training per epoch")
    rung = _find(record.rung)
    if reason := why_refused(record, rung.id, rung.recipe.as_dict(), record.code_digest):
        print(f"This run is not a published one: {reason}. Do not compare its numbers with the table below.")
    return ladder_table(rung.ladder.letter, up_to=rung.id)


def ladder_table(letter, *, up_to=None):
    """One row per rung of a ladder, from the published results.

    Returns: DataFrame of text, indexed by rung. `change` is the difference to the rung before with its
        95 % Welch interval over seeds, in percentage points.
    """
    rows = {}
    for rung in find_rungs():
        if rung.ladder.letter != letter or (up_to and rung.id > up_to):
            continue
        row = {
            "idea": rung.idea,
            "parameters": f"{rung.recipe.parameters:,}",
            "receptive field": receptive_field(rung.recipe.specimen()),
        }
        if summary := rung.summary:
            row |= summary_row(summary)
            before = load_records(rung.previous.id) if rung.previous else []
            row["change, points"] = format_change(load_records(rung.id), before)
        rows[rung.id] = row
    return pd.DataFrame.from_dict(rows, orient="index").fillna("–")


def compare(*names):
    """One row per rung or ablation, from the published results; `against` is the difference to the first of them."""
    rungs = {name: _find(name.partition("_")[0]) for name in names}
    first, measure = load_records(names[0]), rungs[names[0]].measure
    rows = {}
    for name, rung in rungs.items():
        rows[name] = {"parameters": f"{rung.recipes[name].parameters:,}"}
        if summary := rung.summary_of(name):
            rows[name] |= summary_row(summary)
            if name != names[0]:
                rows[name][f"against {names[0]}, points"] = format_change(load_records(name), first, measure)
    return pd.DataFrame.from_dict(rows, orient="index").fillna("–")


def summary_row(summary):
    """Statistics of a rung as the text of a table row."""
    return {
        "test accuracy, %": accuracy_with_spread(summary),
        "worst seed, %": f"{100 * summary.worst:.2f}",
        "best epoch, %": f"{100 * summary.best_epoch:.2f}",
        "clean train, %": f"{100 * summary.clean_train:.2f}",
    }


def accuracy_with_spread(summary):
    """Mean of the last-five means in percent, with the deviation of the seeds if there are several."""
    spread = "" if summary.std is None else f" ± {100 * summary.std:.2f}"
    return f"{100 * summary.mean:.2f}{spread} (n={summary.n})"


def format_change(records, before, measure="test accuracy"):
    """Difference of two rungs in percentage points: "+0.12 [+0.05, +0.19]", or without an interval if n is 1."""
    if not before:
        return "–"
    return format_difference(compare_runs(records, before, measure))


def signal_strength(recipes, split):
    """Measure how different images still look after each unit of untrained networks.

    Args:
        recipes: dictionary of recipes by name; the networks are built with seed 0.
        split: images to look at, uint8 (N, 1, 28, 28).

    Returns: DataFrame, a row per convolution unit and a column per recipe: the standard deviation between images,
        averaged over channels and places. Batch normalisation uses the statistics of these images.
    Raises: ValueError naming the network, if it is no plain nn.Sequential, whose units act in a row.
    """
    images = prepare(split.images, ())
    columns = {}
    for name, recipe in recipes.items():
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            network = recipe.build_network().train()
            if type(network).forward is not torch.nn.Sequential.forward:
                raise ValueError(
                    f"signal_strength: {type(network).__name__} is no plain nn.Sequential, whose units act in a row"
                )
            signal, strengths = images, [images.std(dim=0).mean().item()]
            for layer in network:
                signal = layer(signal)
                if any(isinstance(part, torch.nn.Conv2d) for part in layer.modules()):
                    strengths.append(signal.std(dim=0).mean().item())
        columns[name] = strengths
    table = pd.DataFrame({name: pd.Series(strengths) for name, strengths in columns.items()}).round(3).astype(object)
    table.index = ["input", *(f"convolution {position}" for position in table.index[1:])]
    return table.where(table.notna(), "–")


@dataclass(frozen=True, repr=False)
class Mistakes:
    """Counts of true and predicted digits, int64 (10, 10), and the wrong images, surest first, with captions."""

    matrix: torch.Tensor
    images: torch.Tensor
    captions: list[str]


def find_mistakes(run):
    """Collect what the network of a finished run gets wrong on the test set."""
    split = run.digits.test
    sureness, predictions = run.predict_test().max(dim=1)
    matrix = torch.bincount(split.labels * CLASSES + predictions, minlength=CLASSES**2).view(CLASSES, CLASSES)
    wrong = torch.nonzero(predictions != split.labels).flatten()
    wrong = wrong[sureness[wrong].argsort(descending=True)]
    captions = [f"{split.labels[i]} → {predictions[i]}  {sureness[i]:.0%}" for i in wrong]
    return Mistakes(matrix, split.images[wrong], captions)


def _find(rung_id):
    return find_rungs([rung_id])[0]
