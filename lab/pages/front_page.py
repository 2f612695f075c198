"""What README shows before anything else: one picture, six rows, and how many claims held."""

import io

import matplotlib.pyplot as plt
from matplotlib import rc_context

from lab.ladders.measures import accuracy_with_spread
from lab.ladders.originals import original_claims, source_steps
from lab.ladders.rungs import find_rung, find_rungs
from lab.ladders.verdicts import Family
from lab.numbers import in_percent, limit
from lab.pages.picture import listed
from lab.pages.tables import count_of, last_rungs
from lab.run.record import TARGET

MODES = {
    "light": ("#24292f", "#57606a"),
    "dark": ("#e6edf3", "#8b949e"),
}  # colours of text and of what is less important
SAID = "the tutorials, in their own words"
SERIES = {  # in the order of drawing: marker, colour, size
    SAID: ("x", "#999999", 30),
    "the same steps, measured": ("o", "#56b4e9", 22),
    "the same networks, trained further": ("D", "#e69f00", 42),
    "ladder E": ("*", "#d55e00", 110),
}


def front_points():
    """Every series of the picture: points (name, parameters, accuracy in percent)."""
    rungs = [rung for rung in find_rungs() if rung.summary]
    steps = {name: step for name, step in source_steps().items() if "claimed_test" in step}
    said = [(name, step["parameters"], step["claimed_test"]) for name, step in steps.items()]
    roads = [rung for rung in rungs if rung.ladder.is_road]
    groups = [
        [rung for rung in roads if rung.source],
        [rung for rung in roads if not rung.source],
        [rung for rung in rungs if not rung.ladder.is_road],
    ]
    measured = [[(rung.id, rung.recipe.parameters, float(100 * rung.summary.mean)) for rung in each] for each in groups]
    return dict(zip(SERIES, [said, *measured], strict=True))


def front_picture(mode):
    """Test accuracy against parameters as SVG, for a light or a dark page; the same text for the same results."""
    text, quiet = MODES[mode]
    colours = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), text)
    with rc_context(colours | {"axes.edgecolor": quiet, "svg.hashsalt": "front page", "svg.fonttype": "path"}):
        figure, axis = plt.subplots(figsize=(7, 3.9))
        for (label, (marker, colour, size)), points in zip(SERIES.items(), front_points().values(), strict=True):
            names, sizes, accuracies = zip(*points, strict=True)
            axis.scatter(sizes, accuracies, marker=marker, color=colour, s=size, label=label, zorder=3)
            if marker in "*":
                for name, x, y in points:
                    axis.annotate(name, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8)
        axis.axhline(float(100 * TARGET), color=quiet, linestyle="--", linewidth=1)
        place = axis.get_yaxis_transform()  # from the left edge to the right one, and percent
        axis.annotate(limit(TARGET), (0.99, float(100 * TARGET)), xycoords=place, ha="right", va="bottom")
        axis.set(xscale="log", xlabel="parameters", ylabel="test accuracy, %", ylim=(97.8, 99.75))
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=9, loc="lower right", frameon=False)
        figure.tight_layout()
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
        plt.close(figure)
    return drawn.getvalue()


def front_words():
    """What the picture shows, in a sentence."""
    points = front_points()
    found = {label: max(each, key=lambda point: point[2]) for label, each in points.items()}
    said = [
        f"{label} {best[2]:.2f} % with {best[1]:,} parameters" + f" ({best[0]})" * (label != SAID)
        for label, best in found.items()
    ]
    words = f"Test accuracy against parameters, the best of each kind: {listed(said)}"
    return f"{words}. The dashed line is {limit(TARGET)}."


def front_rows():
    """Six rungs in rows of text: the start, the best end of a road, and the four questions of ladder E."""
    best = max(map(find_rung, last_rungs()), key=lambda rung: rung.summary.mean)
    rows = []
    for what, rung in (
        ("where the roads begin", find_rung("a00")),
        ("the best end of a road", best),
        ("as accurate as can be, below 8,000 parameters", find_rung("e01")),
        ("as small as can be", find_rung("e02")),
        ("as soon as can be", find_rung("e03")),
        ("as fast as can be", find_rung("e04")),
    ):
        sizes = count_of(rung.recipe), str(rung.recipe.epochs)
        accuracies = accuracy_with_spread(rung.summary), in_percent(rung.summary.worst)
        rows.append((what, rung, *sizes, *accuracies, in_a_word(rung)))
    return rows


def in_a_word(rung):
    """Whether its goal is met, as short as can be: "held", "met", "missed by 4 images", "missed by 3 of 5 seeds"."""
    summary = rung.summary
    verdict = rung.goal.verdict(rung.recipe, summary)
    if verdict.startswith("**missed** by"):
        return verdict.replace("*", "").partition(" (")[0]
    if verdict.startswith("**missed** (") and rung.goal.steady:
        return f"missed by {summary.n - summary.steady} of {summary.n} seeds"
    return "missed" if verdict.startswith("**missed**") else "held" if rung.goal.steady else "met"


def claims_in_words():
    """How many effects that the originals claim are shown, refuted and open."""
    claims, family = [claim for _, claim in original_claims()], Family.of_all_pages()
    counts = {}
    for word in ("shown", "refuted", "not shown"):
        found = [claim for claim in claims if claim.finding == word]
        counts[word] = len(found), sum(map(family.survives, found))
    (shown, sure), (refuted, surely), (still_open, _) = counts.values()
    together = sum(claim.finding == "shown" and bool(claim.together_with) for claim in claims)
    words = f"The tutorials state {len(claims)} effects. Measured with several seeds each, {shown} of them are shown "
    words += f"({together} together with other changes), "
    words += f"{refuted} refuted, and {still_open} open; corrected for all that this project claims, {sure} stay shown "
    return f"{words}and {surely} refuted."
