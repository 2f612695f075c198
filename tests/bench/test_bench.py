"""The benchmark measures what it says: the same network and work on both sides."""

import json
import shutil

import pytest
import torch

from lab.bench import contestants, meter, table, whole_runs
from lab.pages import speed
from lab.training.data import load_digits


@pytest.mark.parametrize("name", [name for name in contestants.CONTESTANTS if name != "torch_compile"])
def test_every_contestant_trains_and_reports_a_rate(name, monkeypatch):
    if name.startswith(("compiled", "arithmetic")) and shutil.which("g++") is None:
        pytest.skip("needs g++")
    sample = load_digits("sample", train_limit=1024)
    for module in meter, contestants:
        monkeypatch.setattr(module, "SECONDS", 0.2)
    monkeypatch.setattr(contestants, "load_digits", lambda: sample)
    assert contestants.CONTESTANTS[name](*([0] if name == "originals" else [])) > 0


def test_the_meter_counts_whole_batches_after_the_warm_up(monkeypatch):
    clock = iter([0.0, 1.0, 2.0, 9.0, 10.0])
    monkeypatch.setattr(meter.time, "perf_counter", lambda: next(clock))
    counted = meter.Meter()
    for _ in range(meter.WARM_UP_BATCHES + 2):
        counted()
    with pytest.raises(meter.EnoughMeasured):
        counted()
    assert counted.images_per_second == pytest.approx(3 * meter.BATCH / 10)


def test_the_table_compares_medians_with_the_first_and_with_the_limit():
    lines = list(table.table({"theirs": [90.0, 100.0, 300.0], "ours": [400.0, 500.0, 600.0], "limit": [1000.0] * 3}))
    assert [line.split()[1:] for line in lines[1:]] == [
        ["100", "90", "300", "600.0", "1.00", "10.00"],
        ["500", "400", "600", "120.0", "5.00", "2.00"],
        ["1,000", "1,000", "1,000", "60.0", "10.00", "1.00"],
    ]


def test_what_is_kept_is_what_readme_shows(tmp_path, monkeypatch):
    rates = {"theirs": [100.0, 90.0, 300.0], "ours": [600.0, 400.0, 500.0], "limit": [1000.0] * 3}
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({"machine": "2 cores", "rounds": 3, "seconds": 8.0, "rates": rates}))
    monkeypatch.setattr(speed, "KEPT", path)
    lines = speed.bench_block(None).splitlines()
    assert "| ours | 500 | 5.0 | 2.00 |" in lines
    assert lines[-1] == "2 cores; median of 3 rounds of 8 s."


def test_the_work_of_an_image_is_what_its_convolutions_multiply():
    """Outputs times inputs times kernel times pixels, layer by layer of rung a07; back as forward, twice."""
    layers = 8 * 9 * 26**2 + 16 * 8 * 9 * 24**2 + 8 * 16 * 12**2 + 10 * 8 * 9 * 10**2
    layers += 16 * 10 * 9 * 8**2 + 18 * 16 * 9 * 6**2 + 16 * 18 + 10 * 16
    assert table.work_per_image() == 3 * layers


def test_a_contestant_that_fails_is_named():
    with pytest.raises(RuntimeError, match="nobody failed"):
        table.together([["sh", "-c", "exit 3", "nobody"]], threads=1)


def test_both_loops_draw_distortions_from_the_same_ranges():
    from torchvision import transforms

    torch.manual_seed(0)
    rotation, shift, scale, _ = contestants.AUGMENTATION[1].draw(20_000, 28)
    theirs = transforms.RandomAffine(degrees=7, shear=10, translate=(0.1, 0.1), scale=(0.8, 1.2))
    draws = [
        theirs.get_params(theirs.degrees, theirs.translate, theirs.scale, theirs.shear, [28, 28]) for _ in range(2000)
    ]
    assert rotation.abs().max() <= 7
    assert max(abs(draw[0]) for draw in draws) <= 7
    assert shift.abs().max() == max(max(map(abs, draw[1])) for draw in draws) == 3
    assert scale.min() >= 0.8
    assert scale.max() <= 1.2


@pytest.mark.parametrize("trainer", whole_runs.TRAINERS)
def test_a_whole_run_is_timed_over_all_of_its_epochs(trainer, monkeypatch):
    if trainer == "compiled" and shutil.which("g++") is None:
        pytest.skip("needs g++")
    sample, epochs = load_digits("sample", train_limit=128), []
    monkeypatch.setattr(whole_runs, "load_digits", lambda: sample)
    train = whole_runs.TRAINERS[trainer]
    monkeypatch.setitem(whole_runs.TRAINERS, trainer, lambda *given: [epochs.append(train(*given)), epochs[-1]][1])
    assert whole_runs.train("e04", trainer) == pytest.approx(sum(epoch.seconds for epoch in epochs))
    assert [epoch.total for epoch in epochs] == [128, 13, 13, 13]


def test_seconds_are_the_quickest_of_all_rounds(tmp_path, monkeypatch):
    path = tmp_path / "seconds.json"
    path.write_text(json.dumps({"seconds": {"e04": {"compiled": [3.5, 2.5], "torch": [21.0, 20.0]}}}))
    monkeypatch.setattr(speed, "KEPT_RUNS", path)
    assert speed.seconds_table("e04").loc["e04"].tolist() == ["2.50", "20.0", "8.0"]
    with pytest.raises(ValueError, match="seconds_table: e03 was not measured"):
        speed.seconds_table("e04", "e03")
