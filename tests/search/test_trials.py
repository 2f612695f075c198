"""A search: held-out images only, nothing twice, and on where it was stopped."""

import inspect
import json
import shutil
from dataclasses import replace

import pytest
import torch

from lab.files import ROOT
from lab.run.code import recipe_digest
from lab.run.fit import fit
from lab.search import trials as module
from lab.search.candidates import DEFAULTS, build_recipe
from lab.search.trials import HELD_OUT, Trial, find_trials, hold_out, load_trials, search
from lab.training.data import Digits, Split, load_digits

SMALL = {"layers": "c4 M c4 G", "epochs": 2, "batch_size": 100}
OTHER = SMALL | {"layers": "c4 A c6 G", "rate": 0.05}


@pytest.fixture
def data():
    full = load_digits("sample")
    return Digits("sample", full.sha256, full.train.first(350), full.test.first(0))


@pytest.fixture
def run(tmp_path, data, monkeypatch):
    monkeypatch.setattr(module, "OWN", tmp_path / "runs")
    return lambda *candidates, **knobs: list(
        search("t", candidates, jobs=1, folder=tmp_path, data=data, size=50, **knobs)
    )


def ten_digits():
    labels = torch.arange(10)
    train = Split(labels.view(-1, 1, 1, 1).expand(-1, 1, 28, 28).to(torch.uint8), labels)
    return Digits("d", "5ha", train, Split(train.images + 100, labels.flip(0)))


@pytest.mark.parametrize(("block", "held_out"), [(0, [7, 8, 9]), (1, [4, 5, 6]), (2, [1, 2, 3])])
def test_held_out_images_are_the_last_of_the_training_set_or_those_before_them(block, held_out):
    digits = hold_out(ten_digits(), block, 3)
    assert (digits.test.labels.tolist(), digits.test.images[:, 0, 0, 0].tolist()) == (held_out, held_out)
    kept = [label for label in range(10) if label not in held_out]
    assert (digits.train.labels.tolist(), digits.train.images[:, 0, 0, 0].tolist()) == (kept, kept)


@pytest.mark.parametrize(("block", "size"), [(3, 3), (0, 10), (2, 5)])
def test_a_block_that_is_not_there_is_refused(block, size):
    assert hold_out(ten_digits(), 1, 5).test.labels.tolist() == [0, 1, 2, 3, 4]  # the first one is
    with pytest.raises(ValueError, match=f"10 training images have no block={block} of {size}"):
        hold_out(ten_digits(), block, size)


def test_seeds_hold_out_one_block_after_the_other(run, tmp_path):
    (last,) = run(SMALL)
    trials = run(SMALL, seeds=3, blocks=2)
    assert [(trial.seed, trial.block) for trial in trials] == [(1, 1), (2, 0)]
    assert [trial.block for trial in load_trials(tmp_path / "t.jsonl")] == [0, 1, 0]
    assert [(trial.seed, trial.block) for trial in run(SMALL, seeds=2)] == [(1, 0)]  # another block is another trial
    assert last.correct != trials[1].correct


def test_nothing_is_run_twice_and_seeds_come_in_turn(run, tmp_path):
    trials = run(SMALL, OTHER, seeds=2)
    assert [(trial.settings, trial.seed) for trial in trials] == [(SMALL, 0), (OTHER, 0), (SMALL, 1), (OTHER, 1)]
    assert load_trials(tmp_path / "t.jsonl") == trials
    assert all(len(trial.correct) == 2 and max(trial.correct) <= 50 for trial in trials)
    assert all(len(trial.loss) == 2 and min(trial.loss) > 0 for trial in trials)
    assert trials[0].correct != trials[2].correct
    assert run(SMALL, OTHER, seeds=2) == []
    assert [trial.seed for trial in run(SMALL, seeds=3)] == [2]


def test_what_is_published_is_not_run_again_and_nothing_is_added_to_it(run, tmp_path, monkeypatch):
    published = tmp_path / "published"
    monkeypatch.setattr(module, "SEARCH", published)
    first = run(SMALL)
    published.mkdir()
    (tmp_path / "t.jsonl").rename(published / "t.jsonl")
    before = (published / "t.jsonl").read_bytes()
    assert find_trials("t", tmp_path) == first
    own = run(SMALL, OTHER, seeds=1)
    assert [trial.settings for trial in own] == [OTHER]
    assert find_trials("t", tmp_path) == first + own
    assert load_trials(tmp_path / "t.jsonl") == own
    assert (published / "t.jsonl").read_bytes() == before


def test_what_is_all_there_needs_no_data(run, tmp_path, monkeypatch):
    run(SMALL)
    monkeypatch.setattr(module, "load_digits", lambda *_: pytest.fail("data were loaded"))
    assert list(search("t", [SMALL], folder=tmp_path)) == []


def test_searches_go_to_a_folder_of_ones_own():
    assert module.OWN == ROOT / "runs" / "search"
    assert inspect.signature(search).parameters["folder"].default == module.OWN


@pytest.mark.parametrize("topic", ["", "../t", "t.jsonl", 5])
def test_a_topic_cannot_lead_elsewhere(topic):
    with pytest.raises(ValueError, match=f"search: topic={topic!r} must be letters"):
        next(search(topic, [SMALL]))


def test_a_candidate_that_stands_there_twice_runs_once_and_a_lost_end_of_line_costs_nothing(run, tmp_path):
    path = tmp_path / "t.jsonl"
    assert len(run(SMALL, SMALL)) == 1
    path.write_text(path.read_text(encoding="utf-8").rstrip(), encoding="utf-8")
    assert len(run(SMALL, OTHER)) == 1
    assert len(load_trials(path)) == 2


def test_a_network_that_cannot_run_is_named_before_anything_runs(run, tmp_path):
    with pytest.raises(ValueError, match=r'candidate \{"layers": "c8 M M M M M G"\}: .* cannot be used'):
        run(SMALL, {"layers": "c8 M M M M M G"})
    with pytest.raises(ValueError, match='candidate .*"batch_size": 299.*One image is alone'):
        run(SMALL, SMALL | {"batch_size": 299, "layers": "c4 M c4 M c4 c4 G"})  # normalises over 1x1
    assert not (tmp_path / "t.jsonl").exists()


def test_a_damaged_line_is_named(run, tmp_path):
    (tmp_path / "t.jsonl").write_text("\n{", encoding="utf-8")
    with pytest.raises(ValueError, match="t.jsonl, line 2 is not a trial: "):
        run(SMALL)


@pytest.mark.parametrize("path", sorted(module.SEARCH.glob("*.jsonl")), ids=lambda path: path.stem)
def test_what_was_tried_can_be_read(path):
    trials = load_trials(path)
    assert all(max(trial.correct) <= HELD_OUT for trial in trials if trial.correct)
    assert len({(trial.name, trial.seed) for trial in trials}) == len(trials)


def test_a_run_that_diverges_is_kept_as_such(run, tmp_path):
    (trial,) = run(SMALL | {"rate": 1e18})
    assert (trial.correct, trial.loss) == (None, None)
    assert load_trials(tmp_path / "t.jsonl") == [trial]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize("fails", [False, True])
def test_what_the_compiled_trainer_cannot_do_is_left_to_torch(run, data, monkeypatch, capfd, tmp_path, fails):
    """With the same numbers, but for rounding, and another digest."""
    settings = SMALL | {"batch_size": 16, "layers": "c4 M c4 G"}
    stub = tmp_path / "c++"
    stub.write_text("#!/bin/sh\necho 'no licence' >&2; exit 1\n")
    stub.chmod(0o755)
    if fails:
        monkeypatch.setenv("CXX", str(stub))
    data = replace(data, train=data.train.first(338))
    (trial,) = search("u", [settings], jobs=1, folder=tmp_path, data=data, size=50)
    recipe = replace(build_recipe(settings), compiled=not fails)
    record = fit(recipe, hold_out(data, size=50), rung="t", device="cpu", run_dir=tmp_path).record
    assert trial.loss == pytest.approx([row["test_loss"] for row in record.epochs], rel=1e-4)
    assert trial.code_digest == recipe_digest(recipe)
    assert ("not with the compiled trainer" in capfd.readouterr().err) == fails


def test_settings_reach_the_recipe():
    plain = build_recipe({"layers": "c4 G"}).as_dict()
    for name, value in {"epochs": 3, "batch_size": 32, "momentum": 0.5, "average": 0.9, "weight_decay": 0.1}.items():
        assert build_recipe({"layers": "c4 G", name: value}).as_dict()[name] == value != plain[name]
    for name, value in {"rotation": 5.0, "shift": 0.2, "scale": 0.3, "shear": 4.0, "interpolation": "bilinear"}.items():
        assert (
            build_recipe({"layers": "c4 G", name: value}).augmentation != build_recipe({"layers": "c4 G"}).augmentation
        )
    for name, value in {"rate": 0.2, "warmup": 0.1, "start": 0.5}.items():
        assert build_recipe({"layers": "c4 G", name: value}).schedule != build_recipe({"layers": "c4 G"}).schedule
    assert plain["arguments"] == {"layers": "c4 G", "activation": DEFAULTS["activation"]}


@pytest.mark.parametrize(
    "wrong",
    [{"layers": None}, {"epoch": 3}, {"layers": "c4 X G"}, {"scale": "0.1"}, {"rotation": None}, {"average": 1}],
)
def test_a_wrong_candidate_stops_the_search_before_it_begins(run, tmp_path, wrong):
    with pytest.raises(ValueError, match="candidate(: | has)|cannot read|degrees=None must|average=1 must"):
        run(SMALL, {"layers": "c4 G"} | wrong)
    with pytest.raises(ValueError, match="candidate has layers"):
        run(SMALL, {"epochs": 3})
    assert not (tmp_path / "t.jsonl").exists()


def test_last_five_are_of_the_held_out_images():
    trial = Trial(SMALL, 0, 1, [0, 9_900, 9_910, 9_920, 9_930, 9_940], [0.1] * 6, 1.0, "")
    assert trial.last5 == pytest.approx(0.992)
    assert json.loads(trial.name) == SMALL


def test_what_other_code_has_tried_is_tried_again(data, tmp_path, monkeypatch):
    first, second = (
        [*search("topic", [SMALL], jobs=1, folder=tmp_path, data=data, size=50)],
        [*search("topic", [SMALL], jobs=1, folder=tmp_path, data=data, size=50)],
    )
    assert (len(first), second) == (1, [])
    monkeypatch.setattr(module, "digest_or_reason", lambda recipe: "another")
    (again,) = search("topic", [SMALL], jobs=1, folder=tmp_path, data=data, size=50)
    assert again.correct == first[0].correct
    assert len(load_trials(tmp_path / "topic.jsonl")) == 2
    assert find_trials("topic", tmp_path) == [again]


def test_what_was_tried_with_a_setting_that_is_gone_does_not_count(data, tmp_path):
    old = Trial(SMALL | {"gone": 1}, 0, 1, [9_000], [0.1], 1.0, "")
    (tmp_path / "topic.jsonl").write_text(json.dumps(vars(old)), encoding="utf-8")
    assert module.trials_that_count("topic", tmp_path) == []
    assert len([*search("topic", [SMALL], jobs=1, folder=tmp_path, data=data, size=50)]) == 1
