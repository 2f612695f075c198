"""Which of many settings matter: a few runs that vary all of them at once, and the effect of each, with its interval.

Source: Box, Hunter & Hunter 2005, "Statistics for experimenters", chapters 5 and 6.
"""

import numpy as np
import pandas as pd
from scipy import stats
from scipy.linalg import hadamard

from lab.ladders.effects import CONFIDENCE


def screen(settings):
    """Candidates of a two-level design in which no main effect is confounded with another, or an interaction of two.

    Args:
        settings: a dictionary; a list of two values is a setting that varies; the others stay fixed.

    Returns: list of dictionaries, at least twice as many as settings vary; each value of a setting is in half of them.
    Raises: ValueError naming a list that does not hold two values, or if nothing varies.
    """
    varied = {name: values for name, values in settings.items() if isinstance(values, list)}
    for name, values in varied.items():
        if len(values) != 2 or values[0] == values[1]:
            raise ValueError(f"screen: {name}={values!r} must be a list of two different values")
    if not varied:
        raise ValueError("screen: nothing varies; give a list of two values for what shall")
    half = hadamard(1 << (len(varied) - 1).bit_length())[:, : len(varied)]
    design = np.concatenate([half, -half])  # fold-over: every run again with all settings switched
    choices = (design < 0).astype(int)
    return [
        settings | {name: varied[name][choice] for name, choice in zip(varied, row, strict=True)} for row in choices
    ]


def effects(trials, measure, base):
    """The effect of each setting on a measure, others being equal: least squares over trials that vary many at once.

    Args:
        trials: list of Trial; those that broke off are left out.
        measure: function of a Trial, such as `lambda trial: 100 * trial.last5`.
        base: settings to compare with; a value that differs from them gets a row of its own.

    Returns: DataFrame indexed by "setting = value": effect, low and high of its 95 % interval, n of its trials.
    Raises: ValueError if there are too few trials to tell the settings apart.
    """
    trials = [trial for trial in trials if trial.correct]
    changes = [
        {f"{key} = {value}" for key, value in (base | t.settings).items() if base.get(key) != value} for t in trials
    ]
    names = sorted(set().union(*changes))
    table = np.array([[1, *(name in change for name in names)] for change in changes], dtype=float)
    freedom = len(trials) - len(names) - 1
    if freedom < 1 or np.linalg.matrix_rank(table) <= len(names):
        raise ValueError(f"{len(trials)} trials are too few, or too much alike, to tell {len(names)} settings apart")
    values = np.array([measure(trial) for trial in trials])
    solution = np.linalg.lstsq(table, values, rcond=None)[0]
    variance = ((values - table @ solution) ** 2).sum() / freedom * np.linalg.inv(table.T @ table).diagonal()
    half = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(variance)
    rows = {"effect": solution, "low": solution - half, "high": solution + half, "n": table.sum(axis=0).astype(int)}
    return pd.DataFrame(rows, index=["base", *names]).drop("base")
