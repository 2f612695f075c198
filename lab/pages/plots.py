"""Figures. They draw what they are given, compute nothing but positions, and say in a sentence what they show."""

from statistics import fmean

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib import patheffects
from matplotlib.colors import LinearSegmentedColormap

from lab.numbers import in_percent, limit, percent, rounded, signed
from lab.pages.picture import Picture, finish, listed
from lab.run.record import LAST, TARGET

MISSED, HELD = ("#b2301c", "#f4b6a0"), ("#a8cfe6", "#1f5f99")  # red and blue, from far to near and from near to far
SIDES = LinearSegmentedColormap.from_list("sides", [*zip((0, 0.4999, 0.5, 1), MISSED + HELD, strict=True)])
REACH = 0.2  # points from a target at which its colour is strongest
LABEL_WIDTH, LABEL_HEIGHT = 26, 10  # of the name of a rung, in pixels
HALO = [patheffects.withStroke(linewidth=2, foreground="white")]  # keeps lines off the names
MISTAKE_ROWS, MISTAKE_COLUMNS = 4, 8


def _in_percent(fractions):
    return [float(100 * fraction) for fraction in fractions]


def draw_target(axis, target=TARGET):
    """A dashed line across the panel, behind everything else."""
    axis.axhline(float(100 * target), color="0.4", linestyle="--", linewidth=1, zorder=1)


def plot_digits(images, captions, *, columns=10):
    """Draw a grid of digits.

    Args:
        images: (N, 1, 28, 28), any grey scale.
        captions: N short texts.
    """
    return plot_groups({"": (images, captions)}, columns=columns)


def plot_groups(groups, *, columns=10, what="Digits"):
    """Draw grids of digits, one below the other.

    Args:
        groups: by title images, (N, 1, 28, 28), any grey scale, and N short captions.
        what: what they are, in words for readers who cannot see them.
    """
    rows = [max(1, -(-len(images) // columns)) for images, _ in groups.values()]
    heights = [1.05 * count + 0.3 * bool(title) for count, title in zip(rows, groups, strict=True)]
    figure = plt.figure(figsize=(columns * 0.85, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(groups), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, count, (title, (images, captions)) in zip(parts, rows, groups.items(), strict=True):
        axes = part.subplots(count, columns, squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for axis, image, caption in zip(axes.flat, images, captions, strict=False):
            axis.imshow(image[0].numpy(), cmap="gray_r")
            axis.set_title(caption, fontsize=8, pad=2)
        if title:
            part.suptitle(title, fontsize=9, x=0.01, ha="left")
    said = [f"{title}: {listed(captions, 40)}".removeprefix(": ") for title, (_, captions) in groups.items()]
    return Picture(figure, f"{what}. {'. '.join(said)}")


def plot_curves(record, *, target=TARGET):
    """Draw accuracy and loss by epoch: running train, clean train (last epoch), test, the loss of held-out images."""
    epochs = [row["epoch"] for row in record.epochs]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    alone = {"marker": "o", "markersize": 3} if len(epochs) == 1 else {}  # a line of one point cannot be seen
    running = [100 * row["train_correct"] / row["train_total"] for row in record.epochs]
    test = _in_percent(record.test_accuracies)
    left.plot(epochs, running, label="train, as seen", color="C0", **alone)
    left.plot(epochs, test, label="test", color="C1", marker="o", markersize=3)
    behind = {"color": "C0", "markersize": 5, "zorder": 1.9}  # the dots, which it may cover
    left.plot(epochs[-1:], _in_percent([record.clean_train]), "D", label="clean train, last epoch", **behind)
    draw_target(left, target)
    left.annotate(limit(target), (epochs[0], float(100 * target)), fontsize=8, color="0.4", va="bottom")
    # zoom on where decisions fall; a first epoch near chance would flatten everything else
    left.set_ylim(max(0, min(test[-LAST:] + running[-LAST:]) - 1.5), 100.1)
    left.set(xlabel="epoch", ylabel="accuracy, %")
    left.legend(fontsize=8, loc="lower right")
    right.plot(epochs, [row["train_loss"] for row in record.epochs], label="train, as seen", color="C0", **alone)
    right.plot(epochs, [row["test_loss"] for row in record.epochs], label="test", color="C1", marker="o", markersize=3)
    if "held_out_loss" in record.epochs[0]:
        right.plot(epochs, [row["held_out_loss"] for row in record.epochs], label="held out", color="C2", **alone)
    right.set(xlabel="epoch", ylabel="mean loss per image, nats", yscale="log")
    right.legend(fontsize=8)
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
        if alone:
            axis.set_xticks(epochs)
    first, last = (percent(record.test_accuracies[epoch]) for epoch in (0, -1))
    words = f"Accuracy and loss by epoch of {record.rung}, seed {record.seed}: test accuracy {first} after the first, "
    words += f"{last} after the last of {len(epochs)}; then {percent(record.clean_train)} of the training images are "
    return finish(figure, f"{words}right. The test loss falls to {min(row['test_loss'] for row in record.epochs):.4f}")


def plot_schedules(rates_by_name):
    """Draw learning rates over epochs, one line per name; rates are per epoch, at its start.

    Schedules that drop by factors are drawn on a logarithmic axis, where every drop is visible; others from zero.
    """
    figure, axis = plt.subplots(figsize=(5, 2.6))
    for name, rates in rates_by_name.items():
        axis.plot(range(1, len(rates) + 1), rates, marker="o", markersize=3, label=name)
    axis.set(xlabel="epoch", ylabel="learning rate\nat the epoch's start")
    if all(len(set(rates)) < len(rates) / 2 for rates in rates_by_name.values()):
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize=8)
    said = [f"{name} from {r[0]:.2g} by way of {max(r):.2g} to {r[-1]:.2g}" for name, r in rates_by_name.items()]
    return finish(figure, f"Learning rate at the start of each epoch: {listed(said)}")


def plot_mistakes(mistakes):
    """Draw the confusion matrix, true digits as rows, beside the mistakes the network was most sure of."""
    figure = plt.figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.25))
    axis = left.subplots()
    off_diagonal = mistakes.matrix.clone().fill_diagonal_(0)  # colours for errors only
    sns.heatmap(
        off_diagonal.numpy(),
        annot=mistakes.matrix.numpy(),
        fmt="d",
        cmap="Reds",
        cbar=False,
        annot_kws={"fontsize": 7},
        ax=axis,
    )
    axis.set(xlabel="predicted digit", ylabel="true digit")
    axis.tick_params(length=0)
    right.suptitle("true digit → prediction, its probability", fontsize=9)
    for cell, image, caption in zip(
        right.subplots(MISTAKE_ROWS, MISTAKE_COLUMNS).flat, mistakes.images, mistakes.captions, strict=False
    ):
        cell.imshow(image[0].numpy(), cmap="gray_r")
        cell.set_title(caption, fontsize=7, pad=2)
    for cell in right.axes:
        cell.axis("off")
    order = off_diagonal.flatten().argsort(descending=True, stable=True).tolist()
    pairs = [
        (count, *divmod(at, len(off_diagonal))) for at in order[:5] if (count := off_diagonal.flatten()[at].item())
    ]
    words = f"{off_diagonal.sum().item()} of {mistakes.matrix.sum().item():,} test digits are read wrong"
    words += "; most often " + ", ".join(f"{true} as {said} ({count})" for count, true, said in pairs) if pairs else ""
    return Picture(figure, f"{words}. Surest: {listed(mistakes.captions, 5)}" if pairs else words)


def plot_seeds(records_by_rung, *, target=TARGET, at_the_end=False):
    """Draw the last-five mean of every seed, or its last epoch, a column of dots per rung, a panel per ladder."""
    ladders = {}
    for name, records in records_by_rung.items():
        ladders.setdefault(name[0], {})[name] = records
    figure, panels = _panels(len(ladders))
    for axis, (letter, rungs) in zip(panels, ladders.items(), strict=True):
        for position, records in enumerate(rungs.values()):
            heights = _in_percent([record.final if at_the_end else record.last5 for record in records])
            axis.plot([position] * len(records), heights, "o", alpha=0.6, color="C0")
        draw_target(axis, target)
        axis.set_xticks(range(len(rungs)), rungs)
        axis.set_title(f"ladder {letter.upper()}", fontsize=9)
    if at_the_end:
        panels[0].set_ylabel("test accuracy, %\nafter the last epoch")
    said = []
    for name, records in records_by_rung.items():
        found = sorted(record.final if at_the_end else record.last5 for record in records)
        said += [f"{name} {in_percent(found[0])} to {in_percent(found[-1])} (n={len(found)})"] if found else []
    when = "after the last epoch" if at_the_end else "mean of the last five epochs"
    return finish(figure, f"Test accuracy of every seed in percent, {when}: {listed(said, 20)}")


def plot_trainers(table):
    """Draw the difference of two trainers for every recipe with its 95 % interval, a colour per ladder.

    Args:
        table: DataFrame of `compare_trainers`.
    """
    figure, axis = plt.subplots(figsize=(7, 0.8 + 0.19 * len(table)))
    for position, (_, rows) in enumerate(table.groupby(table.index.str[0])):
        places, style = [table.index.get_loc(name) for name in rows.index], {"fmt": "o", "markersize": 4, "capsize": 2}
        reach = [rows["difference"] - rows["low"], rows["high"] - rows["difference"]]
        axis.errorbar(rows["difference"], places, xerr=reach, color=f"C{position}", **style)
    axis.axvline(0, color="0.7", zorder=0)
    axis.set_yticks(range(len(table)), table.index, fontsize=8)
    axis.set(xlabel="compiled minus torch, points of test accuracy", ylim=(len(table) - 0.5, -0.5))
    missing = table.index[(table["low"] > 0) | (table["high"] < 0)]
    words = f"Compiled minus torch for {len(table)} recipes, from {signed(table['difference'].min())} to "
    words += f"{signed(table['difference'].max())} points; the interval misses zero for {listed(missing) or 'none'}"
    return finish(figure, words)


def _panels(count):
    """A figure of `count` panels, two in a row, each with an axis of its own."""
    rows = -(-count // 2)
    figure, axes = plt.subplots(rows, min(count, 2), figsize=(11, 2.9 * rows), squeeze=False)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel("test accuracy, %\nmean of the last five epochs")
    return figure, axes.flat[:count]


def plot_test_accuracy(records_by_name, *, target=TARGET):
    """Draw test accuracy by epoch, one line per name; for several seeds the mean, and their range as a band.

    Args:
        records_by_name: by name a record, or a list of records of equal length; an empty one is left out.
    """
    figure, axis = plt.subplots(figsize=(7, 3.2))
    lowest, highest, said = *[float(100 * target)] * 2, []
    for name, records in records_by_name.items():
        records = records if isinstance(records, list) else [records]
        if not records:
            continue
        by_epoch = [*map(_in_percent, zip(*(record.test_accuracies for record in records), strict=True))]
        epochs, means = range(1, len(by_epoch) + 1), [*map(fmean, by_epoch)]
        said.append(f"{name} {rounded(means[0])} after the first, {rounded(means[-1])} after the last")
        (line,) = axis.plot(epochs, means, marker="o", markersize=3, label=name)
        axis.fill_between(epochs, [*map(min, by_epoch)], [*map(max, by_epoch)], alpha=0.2, color=line.get_color())
        lowest = min(lowest, *map(min, by_epoch[-2 * LAST :]))
        highest = max(highest, *map(max, by_epoch))
    draw_target(axis, target)
    axis.set_ylim(lowest - 0.3, highest + 0.1)  # the first epochs would flatten everything else
    axis.set(xlabel="epoch", ylabel="test accuracy, %")
    axis.xaxis.get_major_locator().set_params(integer=True)
    if any(records_by_name.values()):
        axis.legend(fontsize=8, loc="best")
    return finish(figure, f"Mean test accuracy by epoch in percent: {listed(said)}")


def plot_size_against_accuracy(table, front, *, target=TARGET, small=20_000):
    """Draw every rung by its parameters and accuracy, all of them and, larger, those below `small` parameters.

    Where points crowd, not all of them are named: the last rungs of ladders first, then the best.

    Args:
        table: DataFrame of `overview`.
        front: those of its rows that no rung beats, smallest first.
        small: parameters; the lowest tenth of the accuracies of those rungs is left to the other panel.
    """
    figure, (whole, closer) = plt.subplots(1, 2, figsize=(11, 4.4), width_ratios=(2, 3))
    measured = table.dropna(subset="last five")
    for axis, rungs in ((whole, measured), (closer, measured[measured["parameters"] < small])):
        axis.step(front["parameters"], front["last five"], where="post", color="0.7", label="not beaten by any rung")
        for position, (letter, ladder) in enumerate(rungs.groupby(rungs.index.str[0])):
            style = {
                "fmt": "o",
                "markersize": 4,
                "capsize": 2,
                "color": f"C{position}",
                "label": f"ladder {letter.upper()}",
            }
            axis.errorbar(ladder["parameters"], ladder["last five"], yerr=ladder["spread"].fillna(0), **style)
        draw_target(axis, target)
        axis.set(xscale="log", xlabel="parameters")
    inside = measured[measured["parameters"] < small]
    closer.set_xlim(0.9 * inside["parameters"].min(), 1.25 * inside["parameters"].max())
    closer.set_ylim(inside["last five"].quantile(0.1) - 0.1, max(float(100 * target), inside["last five"].max()) + 0.1)
    ticks = [size for size in (2_000, 3_000, 4_000, 5_000, 7_000, 10_000, 14_000) if size > closer.get_xlim()[0]]
    closer.set_xticks(ticks, [f"{size:,}" for size in ticks])
    closer.minorticks_off()
    whole.set_ylabel("test accuracy, %\nmean of the last five epochs")
    names, lines = whole.get_legend_handles_labels()[::-1]
    figure.legend(lines, names, fontsize=8, loc="lower center", ncols=len(names), frameon=False)
    sns.despine(figure)
    figure.tight_layout(rect=(0, 0.06, 1, 1))  # from here on positions in pixels are final
    _label_points(closer, inside)
    _label_points(whole, measured[measured["parameters"] >= small])
    said = [f"{name} {row['parameters']:,} parameters, {rounded(row['last five'])} %" for name, row in front.iterrows()]
    return Picture(
        figure, f"Test accuracy against parameters. Not beaten by any rung of at most its size: {listed(said)}"
    )


def _label_points(axis, rungs):
    """Write the names of rungs beside their points: the last of each ladder, then the best that find room."""
    taken = []
    ends = ~rungs.index.str[0].duplicated(keep="last")  # the last rung of a ladder comes first
    order = rungs.assign(end=ends).sort_values(["end", "last five"], ascending=False)
    for name, rung in order.iterrows():
        place = (rung["parameters"], rung["last five"])
        x, y = axis.transData.transform(place)
        if any(abs(left - x) < LABEL_WIDTH and abs(height - y) < LABEL_HEIGHT for left, height in taken):
            continue
        taken.append((x, y))
        offset = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
        axis.annotate(name, place, fontsize=7, annotation_clip=True, path_effects=HALO, **offset)


def plot_roads(table, *, target=TARGET):
    """Draw the accuracy of every ladder rung by rung, a panel each; parameters are written where they change."""
    measured = table.dropna(subset="last five")
    ladders = list(measured.groupby(measured.index.str[0]))
    figure, panels = _panels(len(ladders))
    for axis, (letter, rungs) in zip(panels, ladders, strict=True):
        heights, spreads = rungs["last five"].tolist(), rungs["spread"].fillna(0).tolist()
        axis.errorbar(rungs.index, heights, yerr=spreads, marker="o", markersize=4, capsize=2)
        changes = rungs["parameters"].ne(rungs["parameters"].shift())
        for position, (name, rung) in enumerate(rungs.iterrows()):
            if not changes[name]:  # it is as large as the one before
                continue
            is_valley = heights[position] <= min(heights[max(0, position - 1) : position + 2])
            style = {"fontsize": 7, "ha": "center", "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.5}}
            style |= {"xytext": (0, -12 if is_valley else 6), "textcoords": "offset points"}
            end = heights[position] + (-1 if is_valley else 1) * spreads[position]
            axis.annotate(f"{rung['parameters']:,}", (name, end), **style)
        draw_target(axis, target)
        axis.set_title(f"ladder {letter.upper()}", fontsize=9)
        axis.margins(x=0.07, y=0.2)
    said = [f"{name} {rounded(value)}" for name, value in measured["last five"].items()]
    return finish(figure, f"Test accuracy rung by rung in percent: {listed(said, 60)}")


def plot_consistency(records_by_name, *, target=TARGET, columns=5):
    """Draw the last epochs of every seed against the target, a panel per name, a row per seed.

    Blue holds the target, red misses it, each the stronger the further; seeds are sorted by their mean.

    Args:
        records_by_name: a list of records by name.
    """
    rows = -(-len(records_by_name) // columns)
    most = max((len(records) for records in records_by_name.values()), default=1)
    size = (8.5, rows * (0.7 + 0.13 * most))
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axis in axes.flat[len(records_by_name) :]:
        axis.set_visible(False)
    for axis, (name, records) in zip(axes.flat, records_by_name.items(), strict=False):
        runs = sorted(records, key=lambda record: record.last5, reverse=True)
        beyond = [[float(100 * (value - target)) for value in record.test_accuracies[-LAST:]] for record in runs]
        style = {"cmap": SIDES, "vmin": -REACH, "vmax": REACH, "cbar": False, "linewidths": 0.5}
        sns.heatmap(beyond, xticklabels=["", "", "", "", "last"], yticklabels=False, ax=axis, **style)
        steady = sum(min(row) >= 0 for row in beyond)
        axis.set_title(f"{name}: {steady} of {len(records)}", fontsize=9)
        axis.tick_params(length=0, labelsize=8)
    sns.despine(figure, left=True, bottom=True)
    said = [axis.get_title() for axis in axes.flat if axis.get_visible()]
    return finish(figure, f"Seeds that hold {limit(target)} in each of the last five epochs: {listed(said, 20)}")
