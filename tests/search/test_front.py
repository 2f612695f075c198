"""The table at the end of a search: candidates, and what is published at their size."""

import io
import json
import sys
from dataclasses import replace

import pytest

from lab.__main__ import main
from lab.run.code import digest_or_reason
from lab.search import trials as search
from lab.search.candidates import build_recipe
from lab.search.front import format_candidates
from lab.search.trials import Trial


def trial(layers, size, correct, seed=0, **settings):
    settings = {"layers": layers, "epochs": len(correct or [0])} | settings
    return Trial(settings, seed, size, correct, None, 1.0, "d")


def write(path, *trials):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(vars(each)) for each in trials), encoding="utf-8")


PUBLISHED = (
    trial("p1", 100, [9_700] * 6),
    trial("p2", 200, [9_800] * 6),
    trial("p2", 200, [9_810] * 6, seed=1),
    trial("p3", 300, [9_790] * 6),
    trial("p4", 400, None),
    trial("p5", 150, [9_600, 9_650]),
    trial("p6", 900, [9_990] * 6, gone=1),  # a setting that only earlier code knew
)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (
            [trial("x", 250, [0] + [9_750] * 5)],
            ["200 98.05 mean of the last 5 epochs 2", "250 97.50 mean of the last 5 epochs 1"],
        ),
        (
            [trial("x", 160, [9_500, 9_600])],
            ["150 96.25 mean of the last 2 epochs 1", "160 95.50 mean of the last 2 epochs 1"],
        ),
        ([trial("x", 120, [9_500])], ["100 97.00 mean of the last 5 epochs 1", "120 95.00 after the last epoch 1"]),
        ([trial("x", 50, [9_500] * 3, seed=seed) for seed in range(3)], ["50 95.00 mean of the last 3 epochs 3"]),
        ([trial("x", 50, None)], []),
    ],
    ids=["best of its size", "as many epochs", "no other of as many", "smaller than all", "diverged"],
)
def test_candidates_stand_beside_the_best_published_of_their_size(tmp_path, own, expected):
    write(tmp_path / "old.jsonl", *PUBLISHED)
    lines = format_candidates([own[0].settings], own, tmp_path).splitlines()
    if not expected:
        assert lines == [f"every run diverged: {own[0].name}"]
        return
    found = [line.split() for line in lines[1:]]
    for words, text in zip(found, expected, strict=True):
        assert " ".join([words[0], *words[2:]]).startswith(text)
    assert [("published: old" in line) for line in lines[1:]] == [True] * (len(expected) - 1) + [False]


def test_the_command_says_what_is_there_and_ends_with_the_table(tmp_path, monkeypatch, capsys):
    published, own = tmp_path / "published", tmp_path / "own"
    first, second = trial("c4 M c4 G", 236, [9_000] * 6), trial("c4 M c4 G", 236, [9_100] * 6, seed=1)
    write(published / "t.jsonl", first)
    write(own / "t.jsonl", replace(second, code_digest=digest_or_reason(build_recipe(second.settings))))
    monkeypatch.setattr(search, "SEARCH", published)
    monkeypatch.setattr(search, "OWN", own)
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(first.settings)))
    main(["search", "t", "--seeds", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[:3]] == ["already there", "already there", ""]
    assert lines[3].startswith("parameters")
    assert any("this search" in line and "90.50" in line for line in lines[4:])
    assert (published / "t.jsonl").read_text(encoding="utf-8") == json.dumps(vars(first))
