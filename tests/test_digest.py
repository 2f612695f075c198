"""The digest of deciding code: what must change it, and what must not."""

import importlib.util
import sys

import pytest

import model
from lab import digest
from lab.training import begin, evaluate, run_epoch

GEAR = """
class Base:
    ratio = 3

class Wheel(Base):
    def turn(self, angle):
        return angle * self.ratio * TEETH
TEETH = 12
"""
ENGINE = '''
"""An engine."""
from gear import Wheel
RATE, SIZES, NAMES = 0.5, (1, 2), {"fast": 9}

def run(time, *, load: float = 1.0):
    """Run it."""
    check(time, RULES)
    if load < 0:
        raise ValueError(f"load {load} is below zero")
    return _push(time) * RATE  # power

def _push(time):
    return Wheel().turn(time) + SIZES[0] + NAMES["fast"] + 7

def check(value, rules):
    return max(value, rules["most"])
RULES = {"most": 99}

def idle():
    return UNUSED
UNUSED = 100
'''


@pytest.fixture
def digest_of_run(tmp_path_factory, monkeypatch):
    """Digest of `run` after replacing a piece of the two modules above."""

    def load(folder, name, source):
        path = folder / f"{name}.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    def digest_of_run(old="", new=""):
        assert old in GEAR + ENGINE
        folder = tmp_path_factory.mktemp("version").resolve()
        monkeypatch.setattr(digest, "ROOT", folder)
        digest._definitions.cache_clear()
        load(folder, "gear", GEAR.replace(old, new) if old else GEAR)
        return digest.code_digest(load(folder, "engine", ENGINE.replace(old, new) if old else ENGINE).run)

    return digest_of_run


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("An engine.", "The engine."),
        ("Run it.", "Run it slowly."),
        ('    """Run it."""\n', ""),
        ("  # power", ""),
        ("# power", "# force"),
        ("load: float", "load"),
        ("time, *, load", "time: int, *, load"),
        ("1.0):", "1.0) -> float:"),
        ("is below zero", "is negative"),
        ("return angle * self.ratio", "return (angle  *  self.ratio)"),
        ("return UNUSED", "return UNUSED + 1"),
        ("    check(time, RULES)\n", ""),
        ('"most": 99', '"most": 98'),
        ("UNUSED = 100", "UNUSED = 101"),
    ],
)
def test_what_decides_nothing_leaves_it(digest_of_run, old, new):
    assert digest_of_run(old, new) == digest_of_run()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("load < 0", "load < 1"),
        ("float = 1.0", "float = 2.0"),
        (" + 7", " + 8"),
        ("return angle * self", "return angle + self"),
        ("ratio = 3", "ratio = 4"),
        ("TEETH = 12", "TEETH = 13"),
        ("0.5", "0.6"),
        ("(1, 2)", "(2, 2)"),
        ('"fast": 9', '"fast": 8'),
        ("(Base)", ""),
    ],
)
def test_what_decides_a_number_changes_it(digest_of_run, old, new):
    assert digest_of_run(old, new) != digest_of_run()


def test_networks_are_told_apart():
    digests = {digest.code_digest(begin, run_epoch, evaluate, net) for net in (model.TwoLayerHead, model.PooledHead)}
    assert len(digests) == 2
    assert digest.code_digest(model.PooledHead, evaluate, run_epoch, begin) in digests  # whatever the order
