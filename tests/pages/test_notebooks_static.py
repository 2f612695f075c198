"""Every notebook as it lies in the repository: form, generated parts, outputs, links, and the numbers in its prose."""

import ast
import functools
import html
import json
import re
import statistics
import subprocess
import sys
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from lab.batch.executions import CANONICAL_KEYS
from lab.files import ROOT
from lab.ladders.effects import CONFIDENCE
from lab.ladders.goals import LADDERS
from lab.ladders.measures import STEADY_SHARE, Summary
from lab.ladders.rungs import NOTEBOOKS, Rung, find_notebooks, find_rungs
from lab.ladders.verdicts import Family, judge
from lab.numbers import rounded
from lab.pages.project import project, setup_cell
from lab.pages.render import BLOCK, NUMBER, number, render_text, rendered_files
from lab.pages.show import show_change
from lab.pages.tables import compare, ladder_table
from lab.run.progress import HEADER, format_epoch
from lab.run.record import LAST, TARGET
from lab.run.results import load_records
from lab.tracing.receptive_field import layer_table, trace_layers

FOUND, RUNGS = find_notebooks(), find_rungs()
LINES_OF_A_CELL, LINES_OF_A_NOTEBOOK, BYTES = 15, 80, 1_000_000
LINK = re.compile(r"\]\(([^)\s]+)\)")
ABSOLUTE_PATH = re.compile(r"""(?:^|[\s"'(=:])/(?:[\w.~-]+/)+[\w.~-]+|\b[A-Za-z]:\\""", re.MULTILINE)
PROGRESS_BAR = re.compile(r"[▏▎▍▌▋▊▉█]|\d+%\||it/s|s/it")
IN_ORDER = ["check_parameters(globals())", "Recipe(", "show_change(", "show_layers(", "fit(", "plot_curves(", "report("]
IN_ORDER += ["judge("]
CITATION = re.compile(r"\[(\d+): ((?:shown|not shown|refuted)[^\]]*)\]")
all_claims = functools.cache(Family.of_all_pages)
EFFECT = re.compile(  # words by which a sentence states an effect
    r"\b(raises|lowers|helps|hurts|improves|worsens|cures)\b|<!--= \w+ change -->"
)

by_notebook = pytest.mark.parametrize("notebook", FOUND, ids=lambda notebook: notebook.id)
by_rung = pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.id)


def source(cell):
    return "".join(cell["source"])


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell["cell_type"] == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell["outputs"]]


def of_call(notebook, call):
    """Outputs of the first cell that holds a call; none if the notebook has not been executed."""
    return next(cell["outputs"] for cell in code_cells(notebook) if call in source(cell))


def printed(notebook, call):
    return "".join("".join(output["text"]) for output in of_call(notebook, call) if "text" in output)


def shown(notebook, call, kind):
    return "".join("".join(output["data"].get(kind, "")) for output in of_call(notebook, call) if "data" in output)


# --------------------------------------------------------------------------------------------- form


def test_names():
    for notebook in FOUND:
        folder = notebook.path.parent.relative_to(NOTEBOOKS).as_posix()
        assert re.fullmatch(r"(00|97|98|99|[a-z]\d\d)(_[a-z0-9]+)+", notebook.path.stem)
        assert folder.startswith(f"{notebook.id[0]}_") if isinstance(notebook, Rung) else folder == "."
        assert isinstance(notebook, Rung) or notebook.id in ("00", "97", "98", "99")
    for letter in LADDERS:
        numbers = [int(rung.id[1:]) for rung in RUNGS if rung.ladder.letter == letter]
        assert numbers == [*range(numbers[0], numbers[0] + len(numbers))]
        assert len({rung.path.parent for rung in RUNGS if rung.ladder.letter == letter}) == 1


def test_nothing_is_there_twice_or_astray():
    for values in ([notebook.id for notebook in FOUND], [notebook.title for notebook in FOUND]):
        assert [value for value, count in Counter(values).items() if count > 1] == []
    files = {path for path in NOTEBOOKS.rglob("*") if path.is_file() and ".ipynb_checkpoints" not in path.parts}
    assert files == {notebook.path for notebook in FOUND}


@by_notebook
def test_setup_and_parameters_are_the_same_everywhere(notebook):
    assert notebook.tagged("setup") == setup_cell()
    tags = Counter(tag for cell in notebook.cells for tag in cell["metadata"].get("tags", []))
    assert set(tags) <= {
        "setup",
        "parameters",
        "recipe",
        "ablations",
        "claims",
        "exercise",
    }  # none that papermill has injected
    if isinstance(notebook, Rung) or "parameters" in tags:
        same = [re.sub(r"(?<=^epochs: int = )\d+", "15", text.tagged("parameters")) for text in (notebook, RUNGS[0])]
        assert same[0] == same[1]


@by_rung
def test_parameters_are_literals_that_papermill_can_read(rung):
    text = rung.tagged("parameters")
    for line, node in zip(text.splitlines(), ast.parse(text).body, strict=True):
        assert isinstance(node, ast.AnnAssign)
        assert isinstance(node.value, ast.Constant)
        comment = line[node.end_col_offset :]
        assert re.fullmatch(r"  # [^=|]+", comment), f"papermill would not read {line!r}"


@by_rung
def test_order_of_cells(rung):
    headings = [line for cell in rung.cells if cell["cell_type"] == "markdown" for line in source(cell).splitlines()]
    headings = [line for line in headings if line.startswith("#")]
    assert headings[0].startswith(f"# {rung.id.upper()} · ")
    ends = ["## Analysis", "## Try it"] if rung.has("exercise") else ["## Analysis"]
    assert (headings[1:3], headings[-len(ends) :]) == (["## Target", "## Result"], ends)
    assert [source(cell).splitlines()[0] for cell in rung.cells[-len(ends) :]] == ends
    code = [source(cell) for cell in code_cells(rung)]
    tagged = [code.index(rung.tagged(tag)) for tag in ("setup", "parameters", "recipe")]
    called = [next(position for position, text in enumerate(code) if f"utils.{call}" in text) for call in IN_ORDER]
    assert tagged[:2] == [0, 1]
    assert tagged[2] == called[1]
    assert called == sorted(called)
    assert rung.tagged("recipe").startswith(f'rung = "{rung.id}"\n')


@by_notebook
def test_generated_blocks_are_there(notebook):
    assert source(notebook.cells[0]).startswith(f"# {notebook.title}\n")
    assert [match[2] for match in BLOCK.finditer(source(notebook.cells[0]))] == ["navigation"]
    if isinstance(notebook, Rung):
        (cell,) = [cell for cell in notebook.cells if source(cell).startswith("## Result")]
        assert [match[2] for match in BLOCK.finditer(source(cell))] == ["result"]


@by_notebook
def test_budgets(notebook):
    code = [source(cell) for cell in code_cells(notebook) if source(cell) != setup_cell()]
    lengths = [
        sum(bool(line.strip(" )],}")) for line in text.splitlines()) for text in code
    ]  # lines that say something
    assert max(lengths) <= LINES_OF_A_CELL
    assert sum(lengths) <= LINES_OF_A_NOTEBOOK
    assert notebook.path.stat().st_size < BYTES
    ids = [cell["id"] for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


def test_canonical():
    command = [
        "-m",
        "nbstripout",
        "--verify",
        "--keep-output",
        "--keep-count",
        "--keep-id",
        "--extra-keys",
        CANONICAL_KEYS,
    ]
    files = [str(notebook.path) for notebook in FOUND]
    done = subprocess.run([sys.executable, *command, *files], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr


def test_generated_parts_are_current(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stale = [path.relative_to(ROOT) for path, text in rendered_files() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run `make render`"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- begin ladders -->\n", "<!-- begin  and <!-- end  do not pair"),
        ("<!-- begin ladders -->\n<!-- end ladder -->", "<!-- begin  and <!-- end  do not pair"),
        ("<!--= a07 mean -->99.39 %", "<!--=  and <!--/--> do not pair"),
        ("<!--= a07 meen -->99.39 %<!--/-->", "nothing is called 'meen'"),
        ("<!--= a07 epoch16 -->99.39 %<!--/-->", "nothing is called 'epoch16'"),
        ("<!-- begin ladder -->\n<!-- end ladder -->", "nothing is called 'ladder'"),
    ],
)
def test_damaged_marks_are_named(text, message):
    with pytest.raises(ValueError, match=f"README.md: {message}"):
        render_text(text, None)


def test_numbers_in_sentences_are_those_of_the_records():
    records = load_records("a07")
    correct = np.array([[row["test_correct"] for row in record.epochs] for record in records])
    means, steady = correct.mean(axis=0) / 100, (correct[:, -5:].min(axis=1) >= 9940).sum()
    shown = {"epoch5": f"{means[4]:.2f} %", "epoch15": f"{means[-1]:.2f} %", "steady": f"{steady} of {len(records)}"}
    shown |= {"mistakes": str(10_000 - correct[0, -1]), "minus_a06": number("a07", "change")}
    assert {name: number("a07", name) for name in shown} == shown


# ------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *(notebook.path for notebook in FOUND)], ids=lambda path: path.stem
)
def test_links(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join(source(cell) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
    targets = {link.partition("#")[0] for link in LINK.findall(text) if not re.match(r"https?:|mailto:|#", link)}
    missing = [target for target in targets if not (path.parent / target).exists()]
    assert missing == []


@by_notebook
def test_badge_opens_this_notebook(notebook):
    repository = project()["repository"].removeprefix("https://github.com/")
    path = notebook.path.relative_to(ROOT).as_posix()
    (link,) = [link for link in LINK.findall(source(notebook.cells[0])) if "colab" in link and link.endswith("ipynb")]
    assert re.fullmatch(rf"https://colab\.research\.google\.com/github/{repository}/blob/v[\d.]+/{path}", link)


# ----------------------------------------------------------------------------------------- outputs


@by_notebook
def test_executed_in_full_or_not_at_all(notebook):
    showing = [cell for cell in code_cells(notebook) if isinstance(ast.parse(source(cell)).body[-1], ast.Expr)]
    assert len({bool(cell["outputs"]) for cell in showing}) == 1


@by_notebook
def test_outputs_are_quiet_and_portable(notebook):
    for output in outputs(notebook):
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr"
        data = output.get("data", {})
        assert set(data) <= {"text/plain", "text/html", "image/png"}
        assert "image/png" in data or not "".join(data.get("text/plain", "")).startswith("<Figure")
        for text in ["".join(output.get("text", "")), *("".join(data.get(f"text/{x}", "")) for x in ("plain", "html"))]:
            assert not ABSOLUTE_PATH.search(text)
            assert not PROGRESS_BAR.search(text)
            assert " at 0x" not in text
    assert str(ROOT) not in notebook.path.read_text(encoding="utf-8")
    assert "widgets" not in notebook.content["metadata"]


@by_rung
def test_page_shows_the_published_runs(rung):
    name, *ablations = rung.page_recipes
    for names, call in (([name], "run = utils.fit("), (ablations, "utils.fit(other, ")):
        lines = printed(rung, call).splitlines() if names else []
        published = [load_records(name) for name in names]
        if lines and all(published):
            assert all(records[0].seed == 0 for records in published)
            rows = [row for records in published for row in (HEADER, *map(format_epoch, records[0].epochs))]
            assert lines == rows


@by_notebook
def test_cells_of_a_page_were_executed_in_their_order(notebook):
    counts = [cell["execution_count"] for cell in code_cells(notebook)]
    assert counts == [*range(1, len(counts) + 1)]


@by_rung
def test_page_shows_the_present_results(rung):
    if report := html.unescape(shown(rung, "utils.report(", "text/html")):
        table = ladder_table(rung.ladder.letter, up_to=rung.id)
        missing = [value for value in map(str, table.to_numpy().flat) if value not in report]
        assert missing == [], f"results have changed since {rung.id} was published"


@by_rung
def test_page_shows_the_present_comparison(rung):
    for cell in code_cells(rung):
        if (call := re.fullmatch(r"utils\.compare\((.*)\)", source(cell))) and cell["outputs"]:
            table = compare(*ast.literal_eval(f"[{call[1]}]"))
            page = html.unescape(shown(rung, source(cell), "text/html"))
            missing = [value for value in map(str, table.to_numpy().flat) if value not in page]
            assert missing == [], f"results have changed since {rung.id} was published"


@by_rung
def test_page_shows_the_present_change(rung, capsys):
    show_change(rung.id, rung.recipe)
    assert printed(rung, "utils.show_change(") in ("", capsys.readouterr().out)


# ------------------------------------------------------------------------------------------ claims


@by_rung
def test_page_shows_the_present_verdicts(rung):
    if page := html.unescape(shown(rung, "utils.judge(", "text/html")):
        table = judge(rung.claims.values(), all_claims())
        missing = [value for value in map(str, table.to_numpy().flat) if value not in page]
        assert missing == [], f"results have changed since {rung.id} was published"


def analysis_of(rung):
    return next(source(cell) for cell in rung.cells if source(cell).startswith("## Analysis"))


@by_rung
def test_analysis_cites_every_claim_with_its_verdict(rung):
    analysis = analysis_of(rung)
    cited = {int(number): verdict for number, verdict in CITATION.findall(analysis)}
    assert cited == {number: all_claims().verdict(claim) for number, claim in rung.claims.items()}


@by_rung
def test_sentences_about_an_effect_cite_a_claim(rung):
    text = analysis_of(rung).replace("\n", " ")
    sentences = re.split(r"(?<=[.?!:])(?:\*\*)? +(?=[A-Z*<\"])", text)
    stated = [s for s in sentences if EFFECT.search(s) and not s.endswith("?") and "original" not in s.lower()]
    assert [sentence for sentence in stated if not CITATION.search(sentence)] == []


# --------------------------------------------------------------------------------- words of images


def images_of(notebook):
    """Image outputs: their words, and the other text that Jupyter keeps."""
    for cell in code_cells(notebook):
        for output in cell["outputs"]:
            if "image/png" in output.get("data", {}):
                plain = "".join(output["data"]["text/plain"])
                yield output["metadata"].get("image/png", {}).get("alt"), plain


def test_every_image_has_words_of_its_own():
    found = [(notebook.id, words, plain) for notebook in FOUND for words, plain in images_of(notebook)]
    assert len(found) > 100
    assert {name for name, words, _ in found if not words} == set(), "make publish makes these pages again"
    assert all(words == plain for _, words, plain in found)
    repeated = [words for words, count in Counter(words for _, words, _ in found).items() if count > 1]
    assert repeated == []


@by_rung
def test_words_of_curves_and_mistakes_are_those_of_results(rung):
    words = [text for text, _ in images_of(rung)]
    record = load_records(rung.id)[0]
    curves = next(text for text in words if text.startswith("Accuracy and loss by epoch"))
    last = record.epochs[-1]
    for accuracy in (record.test_accuracies[0], record.final, record.clean_train):
        assert f"{rounded(100 * accuracy)} %" in curves
    mistakes = last["test_total"] - last["test_correct"]
    assert any(text.startswith(f"{mistakes} of {last['test_total']:,} test digits are read wrong") for text in words)


def words_that_begin(start):
    return [(notebook.id, words) for notebook in FOUND for words, _ in images_of(notebook) if start in words]


def test_words_of_seeds_are_those_of_results():
    found = words_that_begin("Test accuracy of every seed in percent")
    assert len(found) > 10
    for page, words in found:
        for name, low, high, n in re.findall(r"(\w+) (\d+\.\d+) to (\d+\.\d+) \(n=(\d+)\)", words):
            records = load_records(name)
            values = [record.final if "after the last epoch" in words else record.last5 for record in records]
            wanted = rounded(100 * min(values)), rounded(100 * max(values)), str(len(records))
            assert (low, high, n) == wanted, (page, name)


def test_words_of_epochs_are_those_of_results():
    """Lines of all seeds, or of the one that the page shows."""
    found, known = words_that_begin("Mean test accuracy by epoch in percent"), {rung.id for rung in RUNGS}
    assert len(found) > 5
    for page, words in found:
        for name, first, last in re.findall(r"(\w+) (\d+\.\d+) after the first, (\d+\.\d+) after the last", words):
            if name in known:
                accuracies = [record.test_accuracies for record in load_records(name)]
                lines = [*accuracies, [*map(statistics.mean, zip(*accuracies, strict=True))]]
                assert (first, last) in [(rounded(100 * line[0]), rounded(100 * line[-1])) for line in lines], page


# ------------------------------------------------------------------------------- numbers in prose

TYPED = re.compile(r"(?<![\d.,])(?:(\d+(?:\.\d+)?) ?%|(\d{1,3}(?:,\d{3})+))")
ORIGINALS = json.loads((ROOT / "results" / "originals.json").read_text(encoding="utf-8"))


def typed_numbers(text):
    """Percentages and numbers with a thousands separator that a person has typed, as text."""
    text = NUMBER.sub("", BLOCK.sub("", text))
    return [match[1] or match[2] for match in TYPED.finditer(text)]


def is_known(number, percentages, counts):
    if "," in number:
        return int(number.replace(",", "")) in counts
    decimals = len(number.partition(".")[2])
    return any(rounded(value, decimals) == number for value in percentages)


def known_percentages(rungs):
    """All percentages in results, originals and recipes of some rungs, and the project's own constants."""
    known = {100, 100 * TARGET, 100 * STEADY_SHARE, 100 * CONFIDENCE}
    for rung in rungs:
        known |= {100 * value for value in leaves(rung.recipe.as_dict()) if isinstance(value, float)}
        for step in (ORIGINALS[name] for name in rung.source):
            known |= {value for value in leaves(step) if isinstance(value, float)}
            known |= {statistics.fmean(step["test_by_epoch"][-LAST:])} if "test_by_epoch" in step else set()
        for records in map(load_records, rung.recipes):
            summary = Summary.of(records) if records else None
            known |= {100 * value for value in leaves(vars(summary) if summary else {}) if isinstance(value, Fraction)}
            for record in records:
                known |= {100 * accuracy for accuracy in (*record.test_accuracies, record.clean_train, record.last5)}
                known |= {Fraction(100 * row["train_correct"], row["train_total"]) for row in record.epochs}
    return known


@functools.cache
def known_counts():
    """Sizes of the data set; limits; parameters and channels of every network of a rung, whole and by layer."""
    known = {60_000, 10_000, 50_000, *(rung.goal.parameters_below for rung in RUNGS)}
    for network in [recipe.build_network() for rung in RUNGS for recipe in rung.recipes.values()]:
        layers = trace_layers(network)
        known |= {sum(layer.parameters for layer in layers)}
        known |= {value for layer in layers for value in (layer.parameters, layer.out_channels)}
        known |= set(layer_table(network)["parameters"])  # with its normalisation, as the page shows it
    return known


def leaves(value):
    """All values in nested dictionaries and lists."""
    if isinstance(value, dict | list):
        return [leaf for part in (value.values() if isinstance(value, dict) else value) for leaf in leaves(part)]
    return [value]


@by_rung
def test_typed_numbers_are_known(rung):
    """In readings and Analysis: results, recipes and sources of this rung, the one before, and those that are named."""
    for cell in rung.cells[3:]:
        if cell["cell_type"] == "markdown":
            named = {name.lower() for name in re.findall(r"\b[A-Z]\d\d\b", source(cell))}
            rungs = [other for other in RUNGS if other in (rung, rung.previous) or other.id in named]
            percentages, counts = known_percentages(rungs), known_counts()
            unknown = [number for number in typed_numbers(source(cell)) if not is_known(number, percentages, counts)]
            assert unknown == [], f"{rung.id}, {source(cell)[:40]!r}: not in the results of {[r.id for r in rungs]}"


MISTAKES = re.compile(r"\b(\d+|two|three|four|five|six|seven|eight|nine|ten|\w+teen|\w+ty(-\w+)?) (mistakes|errors)\b")


@by_notebook
def test_no_number_of_mistakes_is_typed(notebook):
    """It is that of a run: rendered, or gone."""
    texts = [NUMBER.sub("", source(cell)) for cell in notebook.cells if cell["cell_type"] == "markdown"]
    typed = [match[0] for text in texts for match in MISTAKES.finditer(text)]
    assert [words for words in typed if words != "60 mistakes"] == []  # what 99.4 % allows


def test_the_test_of_numbers_finds_typed_ones():
    block = "<!-- begin result -->\n1 %\n<!-- end result -->"
    text = f"99.41 % and 6,720, not <!--= a07 mean -->99.50 %<!--/-->, 596 or 15x12\n{block}"
    assert typed_numbers(text) == ["99.41", "6,720"]
    assert is_known("99.41", {99.414}, set())
    assert not is_known("99.41", {99.404, 99.415, 9941}, {9941})
    assert is_known("6,720", set(), {6720})
    assert not is_known("6,720", {6720}, set())
    assert 98.43 in known_percentages([rung for rung in RUNGS if rung.id == "a07"])
    assert {6379786, 6720, 4719616} <= known_counts()


@by_notebook
def test_no_line_begins_with_a_generated_number(notebook):
    """Markdown would take such a line for a block of HTML and end the paragraph there."""
    lines = [line for cell in notebook.cells if cell["cell_type"] == "markdown" for line in source(cell).splitlines()]
    assert not [
        line
        for line in lines + (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("<!--=")
    ]
