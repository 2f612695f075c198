"""Files that are written in one step; what goes wrong meanwhile is in test_faults.py."""

import os
import time

import pytest

from lab.files import STALE_SECONDS, write_atomically


@pytest.mark.parametrize("clock", [-10 * STALE_SECONDS, 10 * STALE_SECONDS], ids=["slow", "fast"])
def test_what_another_process_is_writing_stays_whatever_the_clock_of_the_machine_says(tmp_path, monkeypatch, clock):
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + clock)
    young, old = tmp_path / ".record[1].json.young", tmp_path / ".record[1].json.old"
    young.touch()
    old.touch()
    os.utime(old, (0, 0))
    write_atomically(tmp_path / "record[1].json", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == [young.name, "record[1].json"]
