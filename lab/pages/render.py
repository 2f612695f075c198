"""Generated parts of notebooks and README: whatever can be derived is written by code, between markers.

Three kinds: blocks, `<!-- begin NAME -->` to `<!-- end NAME -->`; numbers inside a sentence,
`<!--= a03 mean -->99.00 %<!--/-->`; and the setup cell, the same in every notebook.
"""

import copy
import json
import os
import re
import statistics
from fractions import Fraction
from pathlib import Path

from lab.files import ROOT, write_atomically
from lab.ladders.goals import LADDERS
from lab.ladders.measures import MEASURES, accuracy_with_spread, summary_row
from lab.ladders.originals import TUTORIALS, source_steps
from lab.ladders.other_digits import on_other_digits
from lab.ladders.rungs import NOTEBOOKS, Rung, find_notebooks, find_rungs, is_usable
from lab.numbers import in_percent, percent, rounded
from lab.pages.cards import cards
from lab.pages.front_page import MODES, claims_in_words, front_picture, front_rows, front_words, in_a_word
from lab.pages.project import badges, citation, setup_cell
from lab.pages.speed import bench_block
from lab.pages.tables import TUTORIAL_ENDS, count_of, format_change, ladder_table
from lab.run.record import LAST
from lab.run.results import load_records
from lab.tracing.folding import stored_parameters
from lab.tracing.receptive_field import known_receptive_field, receptive_field

BLOCK = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)
NUMBER = re.compile(r"(<!--= (\w+) (\w+) -->).*?(<!--/-->)")


def render_all():
    """Rewrite every generated part of every notebook and of README; return the paths that changed."""
    changed = []
    for path, text in rendered_files():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_atomically(path, text)
            changed.append(path.relative_to(ROOT))
    return changed


def rendered_files():
    """Pairs of path and text as it should be, for README with its picture and the pages of the project."""
    for mode in MODES:
        yield ROOT / _front_path(mode), front_picture(mode)
    for path in (ROOT / "README.md", ROOT / "lab" / "README.md"):
        yield path, render_text(path.read_text(encoding="utf-8"), None)
    for notebook in pages():
        yield notebook.path, render_notebook(notebook)
    yield from cards(result)
    yield ROOT / "CITATION.cff", citation()


def pages():
    """The numbered notebooks; what a reader has put beside them, or is working on, stays as it is."""
    return [notebook for notebook in find_notebooks() if notebook.is_numbered and is_usable(notebook)]


def render_notebook(notebook):
    content = copy.deepcopy(notebook.content)
    for cell in content["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cell["source"] = render_text(source, notebook).splitlines(keepends=True)
        elif "setup" in cell["metadata"].get("tags", []):
            cell["source"] = setup_cell().splitlines(keepends=True)
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def render_text(text, notebook):
    """Fill the blocks and numbers of one text.

    Raises: ValueError naming the place, for markers that do not pair or that name nothing.
    """
    where = notebook.path.name if notebook else "README.md"
    for pattern, marks in ((BLOCK, ("<!-- begin ", "<!-- end ")), (NUMBER, ("<!--= ", "<!--/-->"))):
        if any(text.count(mark) != len(pattern.findall(text)) for mark in marks):
            raise ValueError(f"{where}: {' and '.join(marks)} do not pair")
    try:
        text = BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]](notebook)}\n{match[3]}", text)
        return NUMBER.sub(lambda match: f"{match[1]}{number(match[2], match[3])}{match[4]}", text)
    except KeyError as error:
        raise ValueError(f"{where}: nothing is called {error}") from error


def number(result, name):
    """One figure of a rung, or of an ablation, as text for use inside a sentence.

    Args:
        result: "a07", or "a08_slow" for an ablation.
        name: "parameters", "mean", ..., as listed below; "epoch5" is the mean of the seeds in epoch 5; "change" is
            against the rung before, or of an ablation against its rung, and "minus_a07" against any other result.
    """
    rung = find_rungs([result.partition("_")[0]])[0]
    recipe, is_ablation = rung.recipes[result], result != rung.id
    if name == "rf":
        return str(receptive_field(recipe.specimen()))
    if name == "parameters":
        return f"{recipe.parameters:,}"
    if name == "stored":
        return f"{stored_parameters(recipe.specimen()):,}"
    records = load_records(result)
    if not records:
        return "(not run yet)"
    summary = rung.summary_of(result)
    if name == "change":
        return format_change(records, load_records(rung.id if is_ablation else rung.previous.id), rung.measure)
    if name.startswith("minus_"):
        others = load_records(name.removeprefix("minus_"))
        if not others:
            raise KeyError(name)
        return format_change(records, others, rung.measure)
    last, accuracies = records[0].epochs[-1], zip(*(record.test_accuracies for record in records), strict=True)
    return {
        **{f"epoch{epoch}": percent(statistics.mean(values)) for epoch, values in enumerate(accuracies, start=1)},
        "mean": percent(summary.mean),
        "std": "–" if summary.std is None else in_percent(summary.std),
        "worst": percent(summary.worst),
        "best": percent(summary.best_epoch),
        "final": percent(summary.final),
        "clean": percent(summary.clean_train),
        "gap": MEASURES["gap"].write(summary.gap),
        "test": percent(summary.clean_train - summary.gap / 100),  # of the epochs of the gap
        "n": str(summary.n),
        "steady": f"{summary.steady} of {summary.n}",
        "mistakes": str(last["test_total"] - last["test_correct"]),  # of the run that the page shows
        "first": percent(records[0].test_accuracies[0]),
        "running": percent(Fraction(last["train_correct"], last["train_total"])),
    }[name]


# ------------------------------------------------------------------------------------------- blocks


def navigation(notebook):
    """Links to the rungs before and after, to the map, and to where the page can be run."""
    notebooks = pages()
    position = [other.id for other in notebooks].index(notebook.id)
    links = []
    if position > 0:
        links.append(f"[← {notebooks[position - 1].title}]({_link(notebook, notebooks[position - 1])})")
    if isinstance(notebook, Rung):
        links.append(f"[map]({_link(notebook, notebooks[0])})")
    if position + 1 < len(notebooks):
        links.append(f"[{notebooks[position + 1].title} →]({_link(notebook, notebooks[position + 1])})")
    return " · ".join(links + badges(notebook.path.relative_to(ROOT).as_posix()))


def _link(notebook, other):
    return Path(os.path.relpath(other.path, notebook.path.parent)).as_posix()


def result(rung):
    """The Result of a rung: figures, constraint, and what the original reported."""
    records = load_records(rung.id)
    field = known_receptive_field(rung.recipe.specimen())
    rows = [
        ("parameters", count_of(rung.recipe)),
        ("receptive field", f"{field} pixels" if field else "cannot be traced"),
    ]
    sources = [("the original reported", original(rung))] if rung.source else []
    if not records:
        command = f"`make run RUNGS={rung.id} DATASET=mnist`"
        rows.append(("test accuracy", f"not run yet on the full MNIST: {command}"))
        return _table(rows + sources)
    summary, when = rung.summary, "after the last epoch" if rung.goal.at_the_end else "mean of the last five epochs"
    seeds = _seeds([record.seed for record in records])
    cells = summary_row(summary)
    rows += [
        (f"test accuracy, {when}, %", f"**{cells['test accuracy, %']}**, {seeds}"),
        ("worst seed; best single epoch of any seed", f"{cells['worst seed, %']} %; {cells['best epoch, %']} %"),
        (
            f"clean training accuracy; gap to the test accuracy, {_epochs_of_gap(summary)}",
            f"{percent(summary.clean_train)}; {number(rung.id, 'gap')} points",
        ),
    ]
    if elsewhere := on_other_digits(records):
        rows.append(("the same after the last epoch on other digits, 95 % interval", _elsewhere(elsewhere)))
    if rung.previous and load_records(rung.previous.id):
        rows.append((f"change against {rung.previous.id}, points, 95 % interval", number(rung.id, "change")))
    rows += [*sources, (str(rung.goal), verdict(rung))]
    return _table(rows)


def _epochs_of_gap(summary):
    return "after the last epoch" if summary.epochs_of_gap == 1 else "both over the last five epochs"


def _seeds(numbers):
    """Seeds in words: "seed 0", "seeds 0 to 19", "seeds 0, 1, 7"."""
    if len(numbers) > 2 and numbers == [*range(numbers[0], numbers[-1] + 1)]:
        return f"seeds {numbers[0]} to {numbers[-1]}"
    return f"seed{'s' if len(numbers) > 1 else ''} " + ", ".join(map(str, numbers))


def _elsewhere(found):
    """An accuracy with its interval over seeds and images, and what of its standard error is due to either."""
    accuracy, low, high = map(rounded, (found.estimate, found.low, found.high))
    errors = f"{rounded(found.of_seeds, 3)} from seeds, {rounded(found.of_images, 3)} from images"
    return f"{accuracy} [{low}, {high}]; standard error {errors}"


def original(rung):
    """What the source steps logged: mean of the last five epochs and best; without a log, what their text says."""
    steps, names, texts = source_steps(), {}, []
    for name in rung.source:
        if log := steps[name].get("test_by_epoch"):
            names.setdefault(tuple(log), []).append(name)  # two tutorials may show the same run
        elif claimed := steps[name].get("claimed_test"):
            texts.append(f"{rounded(claimed)} % in its text ({_step(name)}; one run, no log)")
    logged = "{last5} % over its last five epochs, {best} % at best ({names}; one run)"
    logs = [
        logged.format(
            last5=rounded(sum(log[-LAST:]) / LAST), best=rounded(max(log)), names=", ".join(map(_step, found))
        )
        for log, found in names.items()
    ]
    return "; ".join(logs + texts)


def _step(name):
    """A source step in words, from its id: "t001-3" is step 3 of tutorial 001, "t004-2-code3" its code 3."""
    tutorial, _, step = name.partition("-")
    return f"{TUTORIALS[tutorial]}, " + (f"code {step.partition('code')[2]}" if "code" in step else f"step {step}")


def tutorials_block(notebook):
    """Who wrote what this project rebuilds, and on which ladder it stands."""
    lines = ["| | tutorial | published by | its notebooks | here |", "|--|--|--|--|--|"]
    for name, tutorial in TUTORIALS.items():
        ladders = {rung.ladder.letter.upper() for rung in find_rungs() for step in rung.source if step.startswith(name)}
        folder = f"`{tutorial.folder}`" if tutorial.folder else "not found; the page alone"
        row = name[1:], str(tutorial), tutorial.author, folder, f"ladder {', '.join(sorted(ladders))}"
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def verdict(rung):
    """Whether the published runs of a rung meet its goal, in a few words."""
    return rung.goal.verdict(rung.recipe, summary) if (summary := rung.summary) else "not run yet"


def headline(rung):
    return accuracy_with_spread(summary) if (summary := rung.summary) else "–"


def _table(rows):
    (first, second), *rest = rows
    return "\n".join([f"| {first} | {second} |", "|--|--|", *(f"| {name} | {value} |" for name, value in rest)])


def ladder_block(letter, prefix):
    """The table of one ladder, its rungs linked."""
    rungs = {rung.id: rung for rung in find_rungs()}
    table = ladder_table(letter)
    header = ["rung", *table.columns]
    lines = [f"| {' | '.join(header)} |", f"|{'--|' * len(header)}"]
    for name, row in table.iterrows():
        link = f"[{name}]({_path(rungs[name], prefix)})"
        row["idea"] += TUTORIAL_ENDS * rungs[name].ends_tutorial
        lines.append(f"| {' | '.join([link, *map(str, row)])} |")
    return "\n".join(lines)


def ladders_block(notebook):
    """One row per ladder: what it asks for, its road in parameters, where its last rung ends; in README, in short."""
    lines = [
        "| ladder | asks for | road, in parameters | where the tutorial ends; test accuracy, % | last rung; the same |",
        "|--|--|--|--|--|",
    ]
    for ladder in (ladder for ladder in LADDERS.values() if ladder.is_road):
        rungs = [rung for rung in find_rungs() if rung.ladder == ladder]
        ends = [rung for rung in rungs if rung.ends_tutorial or rung is rungs[-1]]
        counts = dict.fromkeys(f"{rung.recipe.parameters:,}" for rung in rungs)
        cells = [f"{_page_link(end, notebook)}: {headline(end)}, {_told(end, notebook)}" for end in (ends[0], ends[-1])]
        row = (f"{ladder.letter.upper()}, {ladder.title.lower()}", str(ladder.goal), " → ".join(counts), *cells)
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def frontier_block(notebook):
    """One row per question of the ladder that is no road: what is asked for, and how far it is met."""
    lines = ["| question | asks for | parameters | epochs | test accuracy, % | verdict |", "|--|--|--|--|--|--|"]
    for rung in (rung for rung in find_rungs() if not rung.ladder.is_road):
        sizes = count_of(rung.recipe), str(rung.recipe.epochs)
        told = headline(rung), _told(rung, notebook)
        row = (f"{_page_link(rung, notebook)} {rung.idea}", str(rung.goal), *sizes, *told)
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _told(rung, notebook):
    """Its verdict: in a notebook all of it, in README a word."""
    return verdict(rung) if notebook else in_a_word(rung)


def _page_link(rung, notebook):
    return f"[{rung.id}]({_path(rung, '' if notebook is None else './')})"


def _path(rung, prefix):
    return prefix + rung.path.relative_to(ROOT if prefix == "" else NOTEBOOKS).as_posix()


def _ladder_renderer(letter):
    return lambda notebook: ladder_block(letter, "" if notebook is None else "./")


def picture_block(notebook):
    """The picture of the front page, for light and dark pages."""
    words = front_words()
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{_front_path("dark")}">'
        f'<img alt="{words}" src="{_front_path("light")}"></picture>'
    )


def _front_path(mode):
    return f"results/front_page_{mode}.svg"


def front_block(notebook):
    """The five rows of the front page."""
    lines = [
        "| | rung | parameters | epochs | test accuracy, % | worst seed, % | goal |",
        "|--|--|--|--|--|--|--|",
    ]
    for what, rung, *cells in front_rows():
        lines.append(f"| {' | '.join([what, _page_link(rung, notebook), *cells])} |")
    return "\n".join(lines)


def claims_block(notebook):
    return claims_in_words()


def answer_block(rung):
    """What came of the exercise of a rung."""
    return rung.exercise.answer


def exercises_block(notebook):
    """A row per exercise: where it stands, what is changed, and how long it trains."""
    lines = ["| rung | the change | minutes of training |", "|--|--|--|"]
    for exercise in filter(None, (rung.exercise for rung in find_rungs())):
        removed, added = (
            ", ".join(f"`{line.partition('  #')[0].strip(' ,')}`" for line in one if line not in other) or "nothing"
            for one, other in ((exercise.before, exercise.after), (exercise.after, exercise.before))
        )
        minutes = exercise.minutes
        time = "–" if minutes is None else f"{minutes:.1f}" if minutes < 10 else f"{minutes:.0f}"
        lines.append(f"| {_page_link(exercise.rung, notebook)} | {removed} → {added} | {time} |")
    return "\n".join(lines)


BLOCKS = {
    "answer": answer_block,
    "claims": claims_block,
    "front": front_block,
    "picture": picture_block,
    "exercises": exercises_block,
    "navigation": navigation,
    "result": result,
    "ladders": ladders_block,
    "frontier": frontier_block,
    "tutorials": tutorials_block,
    "bench": bench_block,
} | {f"ladder_{x}": _ladder_renderer(x) for x in LADDERS}
