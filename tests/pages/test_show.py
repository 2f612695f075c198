"""Figures and tables on the page: they show what the run holds, and disturb nothing."""

import ast
import dataclasses
import inspect

import matplotlib.pyplot as plt
import pytest
import torch
from sklearn.metrics import confusion_matrix

import model
import utils
from lab.ladders.rungs import find_rungs
from lab.pages.picture import Picture
from lab.pages.show import LEFT_OUT, describe
from lab.search.notation import Notation


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = utils.Recipe(network=model.NormedSkeleton, epochs=2, batch_size=64)
    digits = utils.load_digits("sample", train_limit=512)
    return utils.fit(recipe, digits, rung="a03", run_dir=str(tmp_path_factory.mktemp("runs")), device="cpu")


def test_show_layers_counts_like_torch_and_draws_no_random_numbers(capsys):
    recipe = utils.Recipe(network=model.TwoLayerHead)
    before = torch.get_rng_state()
    table = utils.show_layers(recipe)
    assert torch.equal(before, torch.get_rng_state())
    total = sum(weight.numel() for weight in recipe.build_network().parameters())
    assert f"Total params: {total:,}" in capsys.readouterr().out
    assert table["parameters"].sum() == total
    assert table["receptive field"].iloc[-1] == 28


def test_show_layers_says_where_weights_are_counted_more_than_once(capsys):
    recipe = utils.Recipe(network=Notation, arguments={"layers": "c8 s48 s48p s48p~ M s48~ s48~ G"})
    table = utils.show_layers(recipe)
    convolutions = sum(len(m.weight.shape) == 4 for m in recipe.build_network().modules() if hasattr(m, "weight"))
    printed = capsys.readouterr().out
    assert printed.count("Conv2d-") == convolutions + 3  # the shared one acts in four places
    assert f"Total params: {recipe.parameters + 3 * 48 * 48:,}" in printed
    assert f"they are {recipe.parameters:,} in all" in printed
    assert table["parameters"].sum() == recipe.parameters


def test_show_change_is_the_difference_and_nothing_else(capsys):
    utils.show_change("a04", utils.Recipe(network=model.NormedSkeleton, arguments={"dropout": 0.1}, compiled=True))
    changed = [
        line for line in capsys.readouterr().out.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]
    assert changed == ["-network = NormedSkeleton()", "+network = NormedSkeleton(dropout=0.1)"]


def test_the_first_rung_shows_its_network_whole(capsys):
    utils.show_change("a00", find_rungs(["a00"])[0].recipe)
    assert "class Oversized(nn.Sequential):" in capsys.readouterr().out


def test_a_description_has_every_setting_and_no_docstring():
    text = describe(utils.Recipe(network=model.TwoLayerHead, schedule=utils.OneCycleLR(max_learning_rate=0.015)))
    assert "schedule = OneCycleLR(max_learning_rate=0.015, warmup=0.3)" in text
    assert '"""' not in text


def test_mistakes_agree_with_sklearn(run):
    mistakes = utils.find_mistakes(run)
    split = run.digits.test
    predictions = run.predict_test().argmax(1)
    assert (mistakes.matrix.numpy() == confusion_matrix(split.labels, predictions, labels=range(10))).all()
    assert len(mistakes.images) == len(mistakes.captions) == (predictions != split.labels).sum()
    assert len(split) - len(mistakes.images) == run.record.epochs[-1]["test_correct"]


def test_curves_draw_the_record(run):
    left, right = utils.plot_curves(run.record).figure.axes
    train, test = left.lines[:2]
    assert list(test.get_ydata()) == pytest.approx([100 * accuracy for accuracy in run.record.test_accuracies])
    assert list(train.get_xdata()) == [1, 2]
    assert list(right.lines[0].get_ydata()) == [row["train_loss"] for row in run.record.epochs]


def test_curves_of_a_single_epoch_are_dots_that_can_be_seen(run):
    once = dataclasses.replace(run.record, epochs=run.record.epochs[:1])
    for axis in utils.plot_curves(once).figure.axes:
        shown = [line for line in axis.lines if len(line.get_xdata()) == 1]
        assert len(shown) >= 2
        assert all(line.get_marker() not in ("None", None, "") for line in shown)
        assert list(axis.get_xticks()) == [1]


def test_figures_are_returned_and_not_left_open(run):
    before = plt.get_fignums()
    figures = [
        utils.plot_mistakes(utils.find_mistakes(run)),
        utils.plot_digits(run.digits.test.images[:12], range(12)),
        utils.plot_seeds({"a03": [run.record], "a04": []}),
        utils.plot_schedules({"a03": [0.01, 0.01]}),
    ]
    assert all(isinstance(figure, Picture) for figure in figures)
    assert plt.get_fignums() == before


def test_report_says_that_a_limited_run_is_not_a_published_one(run, capsys):
    table = utils.report(run)
    assert "Not a published run: it was made on sample, not on mnist" in capsys.readouterr().out
    assert list(table.index)[:-1] == ["a00", "a01", "a02", "a03"]


def test_the_source_of_the_loop_is_shown_as_it_runs_without_docstrings(capsys):
    utils.show_source(utils.train_epoch, utils.evaluate)
    shown = capsys.readouterr().out
    first, second = ast.parse(shown).body
    assert (first.name, second.name) == ("train_epoch", "evaluate")
    for node, function in ((first, utils.train_epoch), (second, utils.evaluate)):
        whole = ast.parse(inspect.getsource(function)).body[0]
        assert ast.get_docstring(node) is None
        assert ast.get_docstring(whole)
        assert [ast.unparse(line) for line in node.body] == [ast.unparse(line) for line in whole.body[1:]]


def test_left_out_lines_of_a_change_are_marked(capsys):
    """What stands between the marks of a diff is whole: put together, both sides are as described."""
    rung = find_rungs(["c07"])[0]
    utils.show_change("c07", rung.recipe)
    _, _, *lines = capsys.readouterr().out.rstrip("\n").split("\n")
    for sign, recipe in (("-", rung.previous.recipe), ("+", rung.recipe)):
        waiting = describe(recipe).splitlines()
        skipping = False
        for line in lines:
            if line == LEFT_OUT:
                skipping = True
            elif line[:1] in (sign, " ", ""):
                while skipping and waiting[0] != line[1:]:
                    waiting.pop(0)
                assert waiting.pop(0) == line[1:]
                skipping = False
        assert skipping or not waiting


def test_layers_are_named_by_number_and_kind(capsys):
    table = utils.show_layers(find_rungs(["a07"])[0].recipe)
    assert list(table.index[:4]) == ["1 conv 3x3", "2 conv 3x3", "3 max pool 2x2", "4 conv 1x1"]
    assert "has the parameters of the normalisation behind it" in capsys.readouterr().out
    assert table["parameters"].sum() == find_rungs(["a07"])[0].recipe.parameters
