"""`index.html` of a folder of runs: every record, executed notebook and failure found there, whoever made it."""

import html
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from lab.batch.execute import NotRun, check_executed
from lab.batch.executions import FAILED
from lab.batch.html_pages import mend_links
from lab.files import write_atomically
from lab.ladders.measures import measured_over
from lab.ladders.rungs import find_notebooks
from lab.numbers import in_percent, percent
from lab.run.record import LAST, RunRecord
from lab.run.schema import DamagedFile
from lab.site.frame import frame

STEM = re.compile(r"seed(\d+)(-[0-9a-f]{12})?")
ENDINGS = (".json", ".ipynb", ".html", FAILED, ".checkpoint")
WIDTH, HEIGHT, BEST = 96, 28, 0.001  # of a curve: pixels, and the error at its upper edge
LONGEST = 500  # characters of a reason; the page has all of it
TITLE = "Executed notebooks"
COLUMNS = ("notebook", "seed", "data", "epochs", "test accuracy, %", "by epoch", "remarks")


@dataclass(frozen=True)
class Row:
    """What one run has left behind."""

    folder: Path  # of its files, from the folder of runs
    seed: int
    earlier: bool  # a later run with other settings or code took its place
    record: RunRecord | None
    page: Path | None  # what its title links to, from the folder of runs
    remarks: tuple[str, ...]
    is_bad: bool


def write_index(run_dir):
    """Write `<run_dir>/index.html`, and mend the links between the pages there. Returns its path."""
    mend_links(run_dir)
    notebooks = find_notebooks()
    order = {notebook.id: position for position, notebook in enumerate(notebooks)}
    rows = sorted(find_rows(run_dir), key=lambda row: (_position(row, order), row.folder, row.seed, row.earlier))
    groups = {}
    for row in rows:
        groups.setdefault(row.folder.parent, []).append(row)
    titles = {notebook.id: _title(notebook) for notebook in notebooks}
    path = Path(run_dir) / "index.html"
    write_atomically(path, _page(groups, titles))
    return path


def _position(row, order):
    return order.get(_owner(row.folder.name, order), len(order))


def _owner(name, known):
    """The id of the notebook that a folder of records belongs to: that of "a07-own" and "a07_small" is a07."""
    return next((short for short in (name, name.removesuffix("-own"), name.partition("_")[0]) if short in known), name)


def _title(notebook):
    try:
        return notebook.title
    except ValueError:  # a file that is not a notebook still has a name
        return notebook.path.stem


# --------------------------------------------------------------------------------------- what lies in a folder


def find_rows(run_dir):
    """A Row for every run that has left a record, an executed notebook or a checkpoint, in any folder below."""
    for folder, folders, names in os.walk(run_dir):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        by_stem = {}
        for name in names:
            stem, ending = os.path.splitext(name)
            if STEM.fullmatch(stem) and ending in ENDINGS:
                by_stem.setdefault(stem, set()).add(ending)
        begun = {STEM.fullmatch(stem)[1] for stem, endings in by_stem.items() if ".checkpoint" in endings}
        for seed in begun:
            by_stem.setdefault(f"seed{seed}", set()).add(".checkpoint")
        for stem, endings in by_stem.items():
            if endings != {".checkpoint"} or STEM.fullmatch(stem)[2] is None:
                yield _row(Path(folder), Path(run_dir), stem, endings)


def _row(folder, run_dir, stem, endings):
    seed, displaced = STEM.fullmatch(stem).groups()
    record, remarks, bad = None, [], []
    if displaced:
        remarks.append("an earlier run, with other settings or code")
    elif ".checkpoint" in endings and ".json" not in endings:
        bad.append("unfinished: the same command goes on after its last epoch")
    if failure := _failure(folder / stem, endings):
        bad.append(f"failed: {failure}")
    if ".json" in endings:
        try:
            record = RunRecord.read(folder / f"{stem}.json")
        except (DamagedFile, OSError) as error:
            bad.append(str(error))
    if record and record.clean_train_correct is None:
        bad.append(f"unfinished: {len(record.epochs)} of {record.recipe['epochs']} epochs")
    if folder.name.endswith("-own"):
        remarks.append("a recipe of one's own")
    endings = [ending for ending in (".html", ".ipynb", ".json") if ending in endings]
    page = (folder / f"{stem}{endings[0]}").relative_to(run_dir) if endings else None
    return Row(folder.relative_to(run_dir), int(seed), bool(displaced), record, page, (*bad, *remarks), bool(bad))


def _failure(stem, endings):
    """Why an execution failed, in words; None if it did not, or left no explanation."""
    try:
        if FAILED in endings:
            return _shortened(stem.with_suffix(FAILED).read_text(encoding="utf-8", errors="replace"))
        if ".ipynb" in endings:  # executed by another program
            check_executed(stem.with_suffix(".ipynb"))
    except NotRun as error:
        return _shortened(str(error))
    except Exception as error:  # a file of another kind may raise anything
        return f"{stem.name}.ipynb cannot be read: {_shortened(str(error))}"
    return None


def _shortened(text):
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


# ----------------------------------------------------------------------------------------------- as HTML


def _page(groups, titles):
    rows = [row for group in groups.values() for row in group]
    counts = f"{len(rows)} runs" if len(rows) != 1 else "1 run"
    if failed := sum(row.is_bad for row in rows):
        counts += f", {failed} of them failed or unfinished"
    parts = [f"<p>{counts}.</p>", *(_section(folder, group, titles) for folder, group in groups.items())]
    return frame(TITLE, "\n".join([f"<h1>{TITLE}</h1>", *parts, LEGEND]), kind="wide runs")


def _section(folder, rows, titles):
    """The runs of one folder; those below the first level can be folded up, and those of a search are."""
    head = "".join(f'<th scope="col">{name}</th>' for name in COLUMNS)
    body = "\n".join(_line(row, titles) for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    if folder == Path("."):
        return table
    name = html.escape(folder.as_posix())
    opened = "" if folder.parts[0] == "search" else " open"
    return f"<details{opened}><summary>{name} ({len(rows)})</summary>\n{table}\n</details>"


def _line(row, titles):
    record = row.record
    title, name = html.escape(_name(row, titles)), row.folder.name
    if row.page:
        title = f'<a href="{quote(os.fsencode(row.page.as_posix()))}">{title}</a>'
    if not _name(row, titles).lower().startswith(name.lower()):  # a copy of a notebook has its title too
        title += f"<small>{html.escape(name)}</small>"
    cells = [title, str(row.seed), *(("–",) * 4 if record is None else _cells(record))]
    remarks = "<br>".join(html.escape(remark) for remark in row.remarks)
    cells.append(f'<span class="bad">{remarks}</span>' if row.is_bad else remarks)
    return "<tr>" + "".join(map('<td data-label="{}">{}</td>'.format, COLUMNS, cells)) + "</tr>"


def _name(row, titles):
    """The title of the notebook, with the name of the ablation; of a search, the network itself."""
    name = row.folder.name
    owner = _owner(name, titles)
    if owner in titles:
        rest = name.removeprefix(owner).removesuffix("-own").strip("_").replace("_", " ")
        return f"{titles[owner]} ({rest})" if rest else titles[owner]
    layers = row.record and row.record.recipe.get("arguments", {}).get("layers")
    return f"{name}: {layers}" if layers else name


def _cells(record):
    """Data, epochs, accuracy and curve of a record as HTML."""
    data = "full MNIST" if record.dataset == "mnist" else html.escape(record.dataset)
    data += f"<small>{record.train_total:,} images</small>"
    accuracies = record.test_accuracies if all(row["test_total"] for row in record.epochs) else []
    if not accuracies:
        return data, str(len(record.epochs)), "–", "–"
    shown, count = in_percent(accuracies[-1]), min(LAST, len(accuracies))
    if count > 1:
        shown += f"<small>{measured_over(count)}: {in_percent(sum(accuracies[-count:]) / count)}</small>"
    return data, str(len(record.epochs)), shown, curve(accuracies)


def curve(accuracies):
    """An inline SVG of accuracies by epoch, fractions; what it shows is described for those who cannot see it.

    Its height is the number of decimal places of the error, from 1 at the bottom to BEST at the top: a tenth of the
    error is always the same step, and curves of all runs can be compared.
    """
    heights = [math.log10(max(1 - accuracy, BEST)) / math.log10(BEST) for accuracy in accuracies]
    step = (WIDTH - 6) / max(len(heights) - 1, 1)
    points = [(3 + step * position, HEIGHT - 3 - (HEIGHT - 6) * height) for position, height in enumerate(heights)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    best = max(accuracies)
    words = f"test accuracy {percent(accuracies[0])} after epoch 1"
    if len(accuracies) > 1:
        words += f", {percent(accuracies[-1])} after epoch {len(accuracies)}"
        words += f", highest {percent(best)} after epoch {accuracies.index(best) + 1}"
    return (
        f'<svg role="img" aria-label="{words}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">'
        f'<title>{words}</title><polyline points="{line}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/></svg>'
    )


LEGEND = """
<footer>
<p><small>Test accuracy is that of the last epoch. On the sample, 1,000 images of 5,000 are tested: its accuracies
cannot be compared with those of the full MNIST.</small></p>
<p><small>Curves show test accuracy by epoch, all to one scale from 0 to 99.9 %: a tenth of the errors is a third of the
height.</small></p>
</footer>
"""
