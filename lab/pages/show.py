"""What a rung puts on the page besides figures: its diff, its layers, its results."""

import ast
import contextlib
import copy
import difflib
import io
import re
import textwrap

import pandas as pd
import torch
from torch.nn.modules.batchnorm import _BatchNorm

import model
from lab.ladders.measures import Summary, summary_row
from lab.ladders.rungs import find_rung, find_rungs
from lab.numbers import percent
from lab.pages.tables import ladder_table, name_of_own
from lab.rules import check, is_a
from lab.run.results import folder_of, published_recipe, why_not_published
from lab.run.source import Untraceable, class_text, function_text
from lab.tracing.receptive_field import acting_table, known_receptive_field, layer_table
from lab.tracing.watch import Opaque
from lab.training.optimizers import settings_without_effect
from lab.training.recipe import Recipe, as_call

IMAGE_SHAPE = (1, 28, 28)
HUNK, LEFT_OUT = re.compile(r"@@ -(\d+)(?:,(\d+))? "), " ⋯"
WORDS = {"Conv2d": "conv", "MaxPool2d": "max pool", "AvgPool2d": "average pool", "AdaptiveAvgPool2d": "average pool"}


def show_change(rung_id, recipe):
    """Print what a recipe changes, as a unified diff of network and settings.

    The recipe published under this name is compared with that of the rung before it: the step is the diff. Any other is
    compared with the published one. The first rung of a ladder has nothing before it, so it is printed whole.
    """
    check("show_change:", {"recipe": recipe}, {"recipe": is_a(Recipe, "a Recipe")})
    rung = find_rung(rung_id)
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
    print("\n".join(_differences(text.splitlines(), after.splitlines(), name, changed)))


def _differences(before, after, *names):
    """Lines of a unified diff, with "⋯" in place of lines that are in both."""
    ends = 0  # of what has been shown so far, in `before`
    for line in difflib.unified_diff(before, after, *names, n=1, lineterm=""):
        hunk = HUNK.match(line)
        if not hunk:
            yield line
            continue
        start, count = int(hunk[1]), int(hunk[2] or 1)
        if start > ends + 1:
            yield LEFT_OUT
        ends = start + count - 1
    if ends < len(before):
        yield LEFT_OUT


def _published(rung):
    """The description of a rung as published; before it is published, as its notebook has it."""
    settings = published_recipe(rung.id)
    if settings is None:
        return describe(rung.recipe)
    network = getattr(model, settings["network"])
    return _describe(settings, network, lambda: network(**settings["arguments"]))


def describe(recipe):
    """A recipe as text: the source of its network without the docstring, then every setting, one per line."""
    return _describe(recipe.as_dict(), recipe.network, recipe.specimen)


def _describe(settings, network, make):
    """The same from its `as_dict` and its class; `make` builds what is printed if there is no source."""
    settings = dict(settings)
    settings["network"] = as_call({"name": settings["network"], **settings.pop("arguments")})
    for name in settings_without_effect(settings["optimizer"]):
        settings.pop(name)
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

    Returns: `layer_table` with layers by number and name; `acting_table` if the receptive fields cannot be traced,
        after a line that says why.
    Raises: ValueError naming the network, if it does not work on images.
    """
    check("show_layers:", {"recipe": recipe}, {"recipe": is_a(Recipe, "a Recipe")})
    _print_summary(recipe)
    try:
        table = layer_table(recipe.specimen())
    except Opaque as error:
        print(f"Without receptive fields: {error}.")
        return acting_table(recipe.specimen())
    if any(isinstance(module, _BatchNorm) for module in recipe.specimen().modules()):
        print("\nIn the next table the line of a layer has the parameters of the normalisation behind it, too.")
    table.index = [f"{number} {_name(row)}" for number, (_, row) in enumerate(table.iterrows(), start=1)]
    return table.drop(columns=["layer", "kernel"])


def _name(row):
    """A layer in words: "conv 3x3", "crop"; for another kind, the name of its class in torch."""
    if row["layer"] == "ZeroPad2d":
        return "crop" if row["padding"] < 0 else "padding"
    kernel = f" {row['kernel']}x{row['kernel']}" if row["kernel"] else ""
    return f"{WORDS.get(row['layer'], row['layer'])}{kernel}"


def _print_summary(recipe):
    """Print torchsummary's table, or why there is none, and the number of parameters where its count differs.

    torchsummary pushes a random batch through the network in whatever mode it is in, which would change
    BatchNorm's statistics and the random numbers of the training to come; here it gets a specimen in eval mode.
    A layer that acts in several places would be listed for all of them each time; it gets a copy for each place.
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
    """The network with a separate module in every place where the same one acts."""
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
    print(f"seed {record.seed}: {percent(record.last5)} mean of {record.last_epochs}, ", end="")
    print(f"{percent(record.final)} at the end", end="")
    print(f" ({record.epochs[-1]['test_total'] - record.epochs[-1]['test_correct']} errors)")
    print(f"clean training accuracy {percent(record.clean_train)} at the end, on {record.clean_train_total:,} images")
    versions = record.versions
    print(f"made with python {versions['python']}, torch {versions['torch']}, on {record.device}, ", end="")
    print(f"{record.threads} thread(s), {record.train_seconds:.1f} s of training per epoch")
    known = record.rung in [rung.id for rung in find_rungs()]
    table = ladder_table(record.rung[0], up_to=record.rung) if known else pd.DataFrame()
    if reason := why_not_published(record):
        print(f"Not a published run: {reason}." + " Its numbers do not compare with the rows above it." * known)
        row = pd.DataFrame.from_dict({name_of_own([record]): _own_row(run)}, orient="index")
        table = pd.concat([table, row]).fillna("–")
    return table


def _own_row(run):
    """A reader's own run as a row of `ladder_table`."""
    sizes = {
        "parameters": f"{run.recipe.parameters:,}",
        "receptive field": known_receptive_field(run.recipe.specimen()),
    }
    return {"idea": run.recipe.network.__name__, **sizes, **summary_row(Summary.of([run.record]))}


def show_source(*functions):
    """Print the project's own code of some functions or classes as it runs, without docstrings.

    Raises: Untraceable naming one whose source cannot be found, or has changed since it was read.
    """
    texts = [class_text(each) if isinstance(each, type) else function_text(each) for each in functions]
    print("\n\n".join(map(_without_docstring, texts)))
