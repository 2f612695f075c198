"""Rules for settings: what a value must be, as a test and in words, and one error that names what breaks a rule."""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import ge, gt, le, lt

import numpy as np

LARGEST = 1e18  # torch takes whole numbers up to 2**63, and float32, in which networks compute, goes on to 3e38


@dataclass(frozen=True)
class Rule:
    """What a value must be: `expected` completes the sentence "epochs=0 must be ..."."""

    expected: str
    holds: Callable[[object], bool]


def check(owner, values, rules):
    """Raise ValueError naming owner, name and value of the first of some values that breaks its rule.

    Args:
        owner: what the settings belong to, as it opens the message: "Recipe:".
        values: dictionary with a value for every rule, and perhaps more.
        rules: Rules by name.
    """
    for name, rule in rules.items():
        if not rule.holds(values[name]):
            raise ValueError(f"{owner} {name}={values[name]!r} must be {rule.expected}")


def check_fields(settings, rules):
    """As `check`, for a dataclass, whose fields first become plain: numpy's numbers become Python's own."""
    for item in fields(settings):
        object.__setattr__(settings, item.name, plain(getattr(settings, item.name)))
    check(f"{type(settings).__name__}:", vars(settings), rules)


def plain(value):
    """The value with numpy's numbers replaced by Python's, also inside tuples, lists and dictionaries."""
    if isinstance(value, np.generic):
        return float(value) if isinstance(value, np.floating) else value.item()
    if type(value) in (tuple, list):
        return type(value)(map(plain, value))
    if type(value) is dict:
        return {plain(key): plain(part) for key, part in value.items()}
    return value


def whole(low, high):
    """A whole number; True and False are refused."""
    return Rule(f"a whole number from {low:,} to {high:,}", lambda value: type(value) is int and low <= value <= high)


def number(low=None, high=None, *, above=None, below=None):
    """A number within bounds; NaN, infinity, True and False are refused."""
    high = LARGEST if high is below is None else high
    bounds = {"at least": (low, ge), "above": (above, gt), "at most": (high, le), "below": (below, lt)}
    given = {word: (bound, compare) for word, (bound, compare) in bounds.items() if bound is not None}

    def holds(value):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and all(compare(value, bound) for bound, compare in given.values())

    words = " and ".join(f"{word} {bound:g}" for word, (bound, _) in given.items())
    return Rule(f"a number {words}", holds)


def one_of(*choices):
    return Rule(f"one of {', '.join(choices)}", lambda value: isinstance(value, str) and value in choices)


def word():
    """A valid name for a file or folder on every system, which cannot lead to another folder."""
    fits = re.compile(r"[A-Za-z0-9_-]+").fullmatch
    return Rule("letters, digits, _ or -", lambda value: isinstance(value, str) and fits(value) is not None)


def is_a(kind, expected):
    """An object of a kind, described in words."""
    return Rule(expected, lambda value: isinstance(value, kind))


def flag():
    return is_a(bool, "True or False")


def pair(rule):
    """Two values, each of which satisfies the rule."""
    return Rule(
        f"a pair, each {rule.expected}",
        lambda value: isinstance(value, tuple | list) and len(value) == 2 and all(map(rule.holds, value)),
    )
