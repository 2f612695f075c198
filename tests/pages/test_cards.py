"""Model cards: each says of its file what the file itself and the records say."""

import re

import pytest

import utils
from lab.ladders.rungs import find_rung, find_rungs
from lab.ladders.weights import WEIGHTS
from lab.run.results import load_records

NAMES = sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


def test_every_network_has_a_card():
    assert sorted(path.stem for path in WEIGHTS.glob("*.md")) == NAMES
    large = [rung.id for rung in find_rungs() if rung.recipe.parameters > 1_000_000]  # 25 MB each
    assert sorted([*NAMES, *large]) == sorted(rung.id for rung in find_rungs())


@pytest.mark.parametrize("name", NAMES)
def test_a_card_counts_what_the_network_gets_wrong(name):
    text = (WEIGHTS / f"{name}.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| (\d+) \| (.*) \|$", text, re.MULTILINE)
    assert [int(digit) for digit, _, _ in rows] == [*range(10)]
    wrong = sum(int(count) for _, count, _ in rows)
    (record,) = [record for record in load_records(name) if record.seed == 0]
    assert wrong == 10_000 - record.epochs[-1]["test_correct"]
    for digit, count, answers in rows:
        said = re.findall(r"(\d)(?: \((\d+)\))?", answers)
        assert sum(int(times or 1) for _, times in said) == int(count)
        assert digit not in [answer for answer, _ in said]
    indices = [int(index) for index in re.search(r"by index: ([\d, ]+)\.", text)[1].split(", ")]
    assert record.errors in (None, indices)
    assert f"{find_rung(name).recipe.parameters:,} parameters" in text
    assert sum(weight.numel() for weight in utils.load_weights(name).parameters()) == find_rung(name).recipe.parameters
