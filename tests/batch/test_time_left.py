"""A batch says how long it will still take."""

import json
import os
import time

from lab.batch.time_left import time_left, time_left_in, work_of
from lab.ladders.rungs import find_notebooks


def test_one_at_a_time_it_follows_the_work():
    works = [30.0, 10.0, 20.0]
    assert time_left(works, [30.0], 1, 1800) == "1 of 3 done, about 30 min left"
    assert time_left(works, [30.0, 10.0], 1, 2400) == "2 of 3 done, about 20 min left"
    assert time_left(works, works, 1, 3900) == "3 of 3 done in about 1 h 05 min"


def test_what_is_running_counts_as_half_done():
    """25 of 40 are left, 15 took ten minutes."""
    assert time_left([10.0] * 4, [10.0], 2, 600) == "1 of 4 done, about 17 min left"


def test_seconds_are_less_than_a_minute():
    assert time_left([1.0, 1.0], [1.0], 1, 3) == "1 of 2 done, less than a minute left"


def test_of_a_plan_what_was_there_before_it_began_does_not_count(tmp_path):
    job = {"rung": "a07", "recipes": ["a07"], "folder": "a07"}
    (tmp_path / "plan.json").write_text(json.dumps({"jobs": {"k": job}, "missing": [["k", seed] for seed in range(3)]}))
    assert time_left_in(tmp_path, 1) == "none of 3 done yet"
    records = tmp_path / "k" / "a07"
    records.mkdir(parents=True)
    for seed, age in ((0, 50), (1, 500)):
        (records / f"seed{seed}.json").write_text("{}")
        os.utime(records / f"seed{seed}.json", (time.time() - age,) * 2)
    os.utime(tmp_path / "plan.json", (time.time() - 300,) * 2)
    assert time_left_in(tmp_path, 1) == "1 of 2 done, about 5 min left"


def test_work_grows_with_network_and_epochs():
    map_, large, small = find_notebooks(["00", "a02", "a01"])
    assert work_of(map_, {}) < work_of(small, {"epochs": 1}) < work_of(small, {}) < work_of(large, {})


def test_some_recipes_are_less_work_than_a_page():
    (rung,) = find_notebooks(["a08"])
    alone = work_of(rung, {}, ["a08"])
    assert alone < work_of(rung, {}) == work_of(rung, {}, rung.page_recipes)
