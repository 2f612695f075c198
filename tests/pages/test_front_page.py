"""What README shows first, against the files of results."""

import re

import numpy as np

import utils
from lab.files import ROOT
from lab.ladders.originals import TUTORIALS, original_claims, source_steps
from lab.pages.front_page import claims_in_words, front_picture, front_points, front_rows
from lab.pages.tables import count_of

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_is_short_and_shows_results_before_any_command():
    assert len(README.splitlines()) <= 110
    assert README.index("| as small as can be |") < README.index("    make run")


def test_the_picture_holds_every_claim_and_every_rung():
    said, steps, ends, frontier = front_points().values()
    claimed = {name: step["claimed_test"] for name, step in source_steps().items() if "claimed_test" in step}
    assert {name: accuracy for name, _, accuracy in said} == claimed
    table = utils.overview().dropna(subset="last five")
    drawn = {name: (size, accuracy) for name, size, accuracy in [*steps, *ends, *frontier]}
    assert drawn.keys() == set(table.index)
    for name, row in table.iterrows():
        np.testing.assert_allclose(drawn[name], (row["parameters"], row["last five"]))
    lowest = min(accuracy for points in front_points().values() for _, _, accuracy in points)
    assert lowest > 97.8  # where the axis ends


def test_both_pictures_are_drawn_alike_each_time():
    light, dark = front_picture("light"), front_picture("dark")
    assert light == front_picture("light")
    assert light != dark
    assert light.count("<path") == dark.count("<path")


def test_the_picture_of_readme_has_words_and_files():
    (block,) = re.findall(r"<picture>.*</picture>", README)
    assert 'alt="Test accuracy against parameters' in block
    for path in re.findall(r'(?:src|srcset)="([^"]+)"', block):
        assert (ROOT / path).read_text(encoding="utf-8").startswith("<?xml")


def test_rows_are_those_of_results():
    for _, rung, parameters, epochs, accuracy, worst, _ in front_rows():
        records = utils.load_records(rung.id)
        means = [float(100 * (record.final if rung.goal.at_the_end else record.last5)) for record in records]
        assert accuracy.startswith(f"{np.mean(means):.2f}")
        assert (parameters.partition(" (")[0], epochs) == (f"{records[0].parameters:,}", str(len(records[0].epochs)))
        assert parameters == count_of(rung.recipe)
        assert worst == f"{min(means):.2f}"


def test_every_claim_of_the_tutorials_is_counted():
    total, shown, together, refuted, still_open, *_ = map(int, re.findall(r"\d+", claims_in_words()))
    assert total == len(original_claims()) == shown + refuted + still_open
    assert 0 < together < shown


def test_every_step_belongs_to_a_tutorial_that_is_named():
    assert {name.partition("-")[0] for name in source_steps()} == TUTORIALS.keys()
    for tutorial in TUTORIALS.values():
        assert tutorial.title in README
        assert tutorial.author in README
