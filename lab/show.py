"""What a rung puts on the page besides figures: its diff, its layers, its results."""

import ast
import contextlib
import copy
import difflib
import io
import platform
import re
import textwrap
from dataclasses import dataclass

import pandas as pd
import torch

import model
from lab.claims import compare_runs, format_difference
from lab.data import CLASSES
from lab.receptive_field import acting_table, known_receptive_field, layer_table
from lab.recipe import WITH_MOMENTUM, Recipe, as_call
from lab.results import Summary, folder_of, load_records, published_recipe, why_not_published
from lab.rules import check, is_a
from lab.rungs import find_rungs
from lab.source import Untraceable, class_text
from lab.training import prepare
from lab.watch import Opaque

IMAGE_SHAPE = (1, 28, 28)


def show_change(rung_id, recipe):
    """Print what a recipe changes, as a unified diff of network and settings.

    The recipe published under this name is compared with that of the rung before it: the step is the diff. Any other is
    compared with the published one. The first rung of a ladder has nothing before it, so it is printed whole.
    """
    check("show_change:", {"recipe": recipe}, {"recipe": is_a(Recipe, "a Recipe")})
    rung = _find(rung_id)
    published, network = published_recipe(rung_id), recipe.network
    is_own = folder_of(rung_id, recipe.as_dict()) != rung_id or (published and network.__module__ != "model")
    before = (
        (rung_id, _published(rung)) if is_own else (rung.previous and (rung.previous.id, _published(rung.previous)))
    )
    after = describe(recipe)
    if not before:
        print(after)
        return
    name, text = before
    changed = f"{rung_id}, yours" if is_own else rung_id
    lines = difflib.unified_diff(text.splitlines(), after.splitlines(), name, changed, n=1, lineterm="")
    print("\n".join(line for line in lines if not line.startswith("@@")))


def _published(rung):
    """The description of what a rung was published with; of what its notebook says, before it is published."""
    settings = published_recipe(rung.id)
    if settings is None:
        return describe(rung.recipe)
    network = getattr(model, settings["network"])
    return _describe(settings, network, lambda: network(**settings["arguments"]))


def describe(recipe):
    """A recipe as text: the source of its network without the docstring, then every setting, one a line."""
    return _describe(recipe.as_dict(), recipe.network, recipe.specimen)


def _describe(settings, network, make):
    """The same of its `as_dict` and its class; `make` builds what is printed where the source cannot be had."""
    settings = dict(settings)
    settings["network"] = as_call({"name": settings["network"], **settings.pop("arguments")})
    for name in ("betas",) if settings["optimizer"] in WITH_MOMENTUM else ("momentum", "nesterov"):
        settings.pop(name)  # it has no effect
    lines = []
    for name, value in settings.items():
        parts = value if isinstance(value, list) and value and isinstance(value[0], dict) else [value]
        lines += [f"{name} = {as_call(part)}" for part in parts]
    try:
        source = _without_docstring(class_text(network))
    except Untraceable:
        source = str(make())
    return f"{source}\n\n" + "\n".join(lines)


def _without_docstring(text):
    lines = textwrap.dedent(text).splitlines()
    first = ast.parse("\n".join(lines)).body[0].body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        lines = lines[: first.lineno - 1] + lines[first.end_lineno :]
    return "\n".join(line for line in lines if line.strip())


def show_layers(recipe):
    """Print torchsummary's table of the network, and return its receptive fields as a table.

    Returns: `layer_table`; `acting_table` if the receptive fields cannot be traced, after a line that says why.
    Raises: ValueError naming the network, if it does not work on images.
    """
    check("show_layers:", {"recipe": recipe}, {"recipe": is_a(Recipe, "a Recipe")})
    _print_summary(recipe)
    try:
        return layer_table(recipe.specimen())
    except Opaque as error:
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
    """Show this run beside the published ones, and the ladder up to here.

    Returns: DataFrame of text; a run that is not a published one is its last row.
    """
    record = run.record
    print(f"seed {record.seed}: {record.last5:.2%} mean of {record.last_epochs}, {record.final:.2%} at the end", end="")
    print(f" ({record.epochs[-1]['test_total'] - record.epochs[-1]['test_correct']} errors)")
    print(f"clean training accuracy {record.clean_train:.2%}, on {record.clean_train_total:,} images")
    print(f"made with python {platform.python_version()}, torch {torch.__version__}, on {record.device}, ", end="")
    print(f"{record.threads} thread(s), {record.train_seconds:.1f} s of training per epoch")
    known = record.rung in [rung.id for rung in find_rungs()]
    table = ladder_table(record.rung[0], up_to=record.rung) if known else pd.DataFrame()
    if reason := why_not_published(record):
        print(f"Not a published run: {reason}." + " Its numbers do not compare with the rows above it." * known)
        row = pd.DataFrame.from_dict({_yours([record]): _own_row(run)}, orient="index")
        table = pd.concat([table, row]).fillna("–")
    return table


def _yours(records):
    seeds = f"seed{'s' if len(records) > 1 else ''} {', '.join(str(record.seed) for record in records)}"
    return f"yours, {seeds}, {records[0].conditions}"


def _own_row(run):
    """A run of one's own as a row of `ladder_table`."""
    sizes = {
        "parameters": f"{run.recipe.parameters:,}",
        "receptive field": known_receptive_field(run.recipe.specimen()),
    }
    return {"idea": run.recipe.network.__name__, **sizes, **summary_row(Summary.of([run.record]))}


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
            "receptive field": known_receptive_field(rung.recipe.specimen()),
        }
        if summary := rung.summary:
            row |= summary_row(summary)
            before = load_records(rung.previous.id) if rung.previous else []
            row["change, points"] = format_change(load_records(rung.id), before)
        rows[rung.id] = row
    return pd.DataFrame.from_dict(rows, orient="index").fillna("–")


def compare(*sides):
    """One row per rung, ablation or own run; `against` is the difference to the first of them.

    Args:
        sides: names of published results, such as "a03" or "b10_inert"; Runs; or lists of Runs of one recipe.

    Returns: DataFrame of text. Where data or images differ, accuracies cannot be compared, and no difference is given.
    """
    named = [_find(side.partition("_")[0]) for side in sides if isinstance(side, str)]
    measure = named[0].measure if named else "test accuracy"
    rows, first = {}, None
    for side in sides:
        name, records, parameters = _side(side)
        if name in rows:
            name = name.replace("yours", f"yours ({len(rows) + 1})")
        rows[name] = {"parameters": f"{parameters:,}"}
        if records:
            rows[name] |= summary_row(Summary.of(records, at_the_end=measure == "final test accuracy"))
        if first is None:
            first = name, records
        elif records and first[1]:
            same_data = {(record.dataset_sha256, record.data) for record in [*records, *first[1]]}
            change = format_change(records, first[1], measure) if len(same_data) == 1 else "other data"
            rows[name][f"against {first[0]}, points"] = change
    return pd.DataFrame.from_dict(rows, orient="index").fillna("–")


def _side(side):
    """Name, records and parameters of one side of a comparison."""
    if isinstance(side, str):
        rung = _find(side.partition("_")[0])
        if side not in rung.recipes:
            raise ValueError(f"compare: {side!r} is none of {', '.join(rung.recipes)}")
        return side, load_records(side), rung.recipes[side].parameters
    runs = side if isinstance(side, list | tuple) else [side]
    if not runs or not all(hasattr(run, "record") for run in runs):
        raise ValueError(f"compare: {side!r} must be a name of results, a Run of fit, or a list of Runs")
    records = [run.record for run in runs]
    return _yours(records), records, records[0].parameters


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
        A network that is no plain nn.Sequential is left out, which is said.
    """
    images = prepare(split.images, ())
    columns = {}
    for name, recipe in recipes.items():
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            network = recipe.build_network().train()
            if type(network).forward is not torch.nn.Sequential.forward:
                print(f"Without {name}: {type(network).__name__} is no plain nn.Sequential, whose units act in a row.")
                continue
            signal, strengths = images, [images.std(dim=0).mean().item()]
            for layer in network:
                signal = layer(signal)
                if any(isinstance(part, torch.nn.Conv2d) for part in layer.modules()):
                    strengths.append(signal.std(dim=0).mean().item())
        columns[name] = strengths
    if not columns:
        return pd.DataFrame()
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
