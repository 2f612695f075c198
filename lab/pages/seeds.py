"""What seeds alone do: how much runs of one recipe differ, and how often a recipe would be called consistent."""

import pandas as pd

from lab.ladders.effects import CONFIDENCE
from lab.ladders.goals import LADDERS
from lab.ladders.measures import MEASURES
from lab.ladders.rungs import find_rung, find_rungs
from lab.ladders.spread import chance_to_be_consistent, pool_spreads
from lab.numbers import rounded
from lab.run.results import load_records

TRUE_MEANS = (99.38, 99.40, 99.42, 99.44, 99.46, 99.48, 99.50, 99.52)
SEEDS = (5, 10, 20)


def spread_table():
    """How far the seeds of a rung lie apart, a row per ladder, and whether its rungs may have a spread in common.

    Returns: DataFrame of text: standard deviations over seeds in points, the smallest, the largest and, unless a
        test finds that they differ, the pooled one. Rungs that have run once do not count.
    """
    rows = {}
    for letter in LADDERS:
        rungs = {rung.id: load_records(rung.id) for rung in find_rungs() if rung.ladder.letter == letter}
        groups = {
            name: MEASURES[find_rung(name).measure].of(records) for name, records in rungs.items() if len(records) > 1
        }
        if not groups:
            continue
        alone = {name: pool_spreads([group]).spread for name, group in groups.items()}
        pooled = pool_spreads([*groups.values()])
        rows[letter.upper()] = {
            "rungs": len(groups),
            **{word: _named(pick(alone, key=alone.get), alone) for word, pick in (("smallest", min), ("largest", max))},
            "p, Brown-Forsythe": f"{pooled.p_value:.2g}",
            "pooled": "they differ" if pooled.p_value < 1 - CONFIDENCE else rounded(pooled.spread, 3),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("ladder")


def _named(name, spreads):
    return f"{rounded(spreads[name], 3)} ({name})"


def consistency_table(names, means=TRUE_MEANS, seeds=SEEDS):
    """How often recipes like these would be called consistent, by their true mean and the number of seeds.

    Args:
        names: of rungs; see `chance_to_be_consistent`.
        means: in percent.

    Returns: DataFrame of text, a row per number of seeds and a column per mean.
    """
    groups = [load_records(name) for name in names]
    chances = {rounded(mean): [f"{chance_to_be_consistent(groups, mean, n):.0%}" for n in seeds] for mean in means}
    return pd.DataFrame(chances, index=pd.Index(seeds, name="seeds \\ true mean, %"))
