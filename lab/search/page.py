"""The search on a page: what was tried, what a screen found, and what each part of a winner is worth."""

from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd

from lab.ladders.effects import compare_seeds, format_difference
from lab.numbers import in_percent, rounded
from lab.pages.picture import finish, listed
from lab.pages.plots import draw_target
from lab.run.record import LAST
from lab.search.candidates import changes, complete, draws, name_in_words
from lab.search.screening import effects
from lab.search.trials import OWN, SEARCH, find_trials, load_trials

TICKS = (1_000, 1_400, 2_000, 2_800, 4_000, 5_600, 8_000)  # parameters
MEASURES = {  # of a trial, on held-out images
    "last five, %": lambda trial: 100 * trial.last5,
    "last epoch, %": lambda trial: 100 * trial.final,
    "loss, 0.001 nats": lambda trial: 1000 * trial.loss[-1],
}


def trials_of(topic, folder=OWN):
    """The completed trials of a topic: the published ones, then the reader's own.

    Raises: FileNotFoundError naming the existing topics; ValueError if every run broke off.
    """
    known = {path.stem: None for place in (SEARCH, folder) for path in sorted(place.glob("*.jsonl"))}
    if topic not in known:
        raise FileNotFoundError(f"no search is called {topic!r}; there are {', '.join(known)}")
    trials = [trial for trial in find_trials(topic, folder) if trial.correct]
    if not trials:
        raise ValueError(f"every run of the search {topic!r} diverged")
    return trials


def search_table(folder=SEARCH):
    """One row per published topic: candidates, runs, hours of one core, and the best of them on held-out images."""
    rows = {}
    for path in sorted(folder.glob("*.jsonl")):
        trials = [trial for trial in load_trials(path) if trial.correct]
        best = max(trials, key=lambda trial: trial.final)
        rows[path.stem] = {
            "candidates": len({trial.name for trial in trials}),
            "runs": len(trials),
            "hours": f"{sum(trial.seconds for trial in trials) / 3600:.1f}",
            "parameters": f"{min(t.parameters for t in trials):,} – {max(t.parameters for t in trials):,}",
            "best single run, %": in_percent(best.final),
            "of": name_in_words(best.settings),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def screen_table(topic, measure="last five, %", folder=OWN):
    """The effect of each setting of a screen against the first trial, the others being equal, with 95 % intervals."""
    trials = [replace(trial, settings=complete(trial.settings)) for trial in trials_of(topic, folder)]
    table = effects(trials, MEASURES[measure], trials[0].settings)
    return table.rename(columns={"effect": f"{label(measure, trials)}: effect"}).round(3)


def ablation_table(topic, measure="last five, %", folder=OWN):
    """What every change costs: the first candidate of a topic and, one after the other, those that differ from it.

    Returns: DataFrame indexed by what is different; mean and deviation over seeds, and the difference to the first
        candidate with its 95 % interval: in pairs where only the training differs, or where several blocks of images
        were held out, some of which are easier than others; else by Welch's.
    """
    by_name, found = {}, trials_of(topic, folder)
    for trial in found:
        by_name.setdefault(trial.name, []).append(trial)
    (first, *others) = by_name.values()
    title = label(measure, found)
    rows = {"all of it": _row(first, measure, title)}
    for trials in others:
        rows[changes(trials[0].settings, first[0].settings)] = _row(trials, measure, title) | {
            f"{title}: change": format_difference(_compare(trials, first, MEASURES[measure]))
        }
    return pd.DataFrame.from_dict(rows, orient="index").fillna("–")


def label(measure, trials):
    """A measure in words, where trials have fewer than five epochs to average."""
    counts = sorted({min(len(trial.correct), LAST) for trial in trials})
    if measure != "last five, %" or counts == [LAST]:
        return measure
    return f"last {' or '.join(map(str, counts))}, %"


def _row(trials, measure, title):
    return {"parameters": f"{trials[0].parameters:,}", title: mean_with_spread(trials, measure)}


def mean_with_spread(trials, measure):
    """A measure over the runs of one candidate: "99.28 ± 0.08 (n=10)"."""
    values = pd.Series([MEASURES[measure](trial) for trial in trials])
    spread = f" ± {rounded(values.std())}" if len(values) > 1 else ""
    return f"{rounded(values.mean())}{spread} (n={len(values)})"


def _compare(trials, first, value):
    """In pairs where both sides see the same images from the same start, or blocks of images are held out in turn."""
    sides = [{(trial.seed, trial.block): value(trial) for trial in side} for side in (trials, first)]
    alike = any(trial.block for trial in first) or draws(trials[0].settings) == draws(first[0].settings)
    return compare_seeds(*sides, alike=alike)


def plot_search(topics, measure="last five, %", folder=OWN):
    """Draw every run of some topics by its parameters and what it reached."""
    found = {topic: trials_of(topic, folder) for topic in topics}
    figure, axis = plt.subplots(figsize=(9, 4.4))
    for position, (topic, trials) in enumerate(found.items()):
        axis.scatter(
            [trial.parameters for trial in trials],
            [MEASURES[measure](trial) for trial in trials],
            s=14,
            alpha=0.7,
            color=f"C{position}",
            label=topic,
        )
    draw_target(axis)
    axis.set(xlabel="parameters", ylabel=f"held-out images, {label(measure, sum(found.values(), []))}", xscale="log")
    axis.set_xticks(TICKS, [f"{ticks:,}" for ticks in TICKS])
    axis.minorticks_off()
    axis.legend(fontsize=8, loc="lower right")
    said = [
        f"{topic} {len(trials)} runs of {min(sizes):,} to {max(sizes):,} parameters, the best at "
        f"{rounded(max(MEASURES[measure](trial) for trial in trials))}"
        for topic, trials in found.items()
        if (sizes := [trial.parameters for trial in trials])
    ]
    return finish(figure, f"Held-out accuracy in percent against parameters: {listed(said)}")
