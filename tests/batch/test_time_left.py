"""A batch says how long it will still take."""

import pytest

from lab.batch import time_left
from lab.batch.time_left import TimeLeft, work_of
from lab.ladders.rungs import find_notebooks


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time_left.time, "monotonic", lambda: now[0])
    return now


def test_one_at_a_time_it_follows_the_work(clock):
    left = TimeLeft([30.0, 10.0, 20.0], jobs=1)
    clock[0] = 1800
    assert left.after(30.0) == "1 of 3 done, about 30 min left"
    clock[0] = 2400
    assert left.after(10.0) == "2 of 3 done, about 20 min left"
    clock[0] = 3600 + 300
    assert left.after(20.0) == "3 of 3 done in about 1 h 05 min"


def test_what_is_running_counts_as_half_done(clock):
    left = TimeLeft([10.0] * 4, jobs=2)
    clock[0] = 600
    assert left.after(10.0) == "1 of 4 done, about 17 min left"  # 25 of 40 are left, 15 took ten minutes


def test_seconds_are_less_than_a_minute(clock):
    left = TimeLeft([1.0, 1.0], jobs=1)
    clock[0] = 3
    assert left.after(1.0) == "1 of 2 done, less than a minute left"


def test_work_grows_with_network_and_epochs():
    map_, large, small = find_notebooks(["00", "a02", "a01"])
    assert work_of(map_, {}) < work_of(small, {"epochs": 1}) < work_of(small, {}) < work_of(large, {})
