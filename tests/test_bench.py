"""The benchmark measures what it says: the same network and work on both sides."""

import pytest
import torch

from lab import bench


@pytest.mark.parametrize("contestant", bench.CONTESTANTS)
def test_every_contestant_trains_and_reports_a_rate(contestant, monkeypatch):
    monkeypatch.setattr(bench, "SECONDS", 0.2)
    monkeypatch.setenv("MNIST_ROOT", "/nowhere")
    monkeypatch.setattr(bench, "load_digits", lambda: bench_digits())
    arguments = [0] if contestant == "originals" else []
    assert bench.CONTESTANTS[contestant](*arguments) > 0


def bench_digits():
    from lab.training.data import load_digits

    return load_digits("sample", train_limit=1024)


def test_the_meter_counts_whole_batches_after_the_warm_up(monkeypatch):
    clock = iter([0.0, 1.0, 2.0, 9.0, 10.0])
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(clock))
    meter = bench._Meter()
    for _ in range(bench.WARM_UP_BATCHES + 2):
        meter()
    with pytest.raises(bench._EnoughMeasured):
        meter()
    assert meter.images_per_second == pytest.approx(3 * bench.BATCH / 10)


def test_both_loops_draw_distortions_from_the_same_ranges():
    from torchvision import transforms

    torch.manual_seed(0)
    rotation, shift, scale, _ = bench.AUGMENTATION[1].draw(20_000, 28)
    theirs = transforms.RandomAffine(degrees=7, shear=10, translate=(0.1, 0.1), scale=(0.8, 1.2))
    draws = [
        theirs.get_params(theirs.degrees, theirs.translate, theirs.scale, theirs.shear, [28, 28]) for _ in range(2000)
    ]
    assert rotation.abs().max() <= 7
    assert max(abs(draw[0]) for draw in draws) <= 7
    assert shift.abs().max() == max(max(map(abs, draw[1])) for draw in draws) == 3
    assert scale.min() >= 0.8
    assert scale.max() <= 1.2
