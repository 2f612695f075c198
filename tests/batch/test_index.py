"""The index of a folder of runs: all that lies there, and how it is shown."""

import re
from dataclasses import replace
from urllib.parse import unquote
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from lab.batch import executions as notebooks
from lab.batch.executions import run_one
from lab.batch.index import curve, write_index
from lab.files import write_atomically
from lab.ladders.rungs import Notebook
from lab.run.results import load_records

FULL = load_records("a03")[0]
SAMPLE = replace(FULL, dataset="sample", train_total=512, epochs=FULL.epochs[:2], recipe=FULL.recipe | {"epochs": 2})
ROW = re.compile(r"<tr><td.*?</tr>", re.DOTALL)


def rows_of(folder):
    """One list of cells per row of the index, tags removed, and the whole page."""
    text = write_index(folder).read_text(encoding="utf-8")
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in ROW.findall(text)]
    return [[" ".join(re.sub(r"<[^>]*>", " ", cell).split()) for cell in row] for row in cells], text


def keep(path, record):
    write_atomically(path, record.to_json())


def test_an_empty_folder_has_an_index(tmp_path):
    rows, text = rows_of(tmp_path / "runs")
    assert rows == []
    assert "0 runs." in text


def test_every_record_is_listed_wherever_it_lies(tmp_path):
    places = ("a03/seed0", "a03/seed10", "a03/seed2-0123456789ab", "a03-own/seed0", "b07_no_dropout/seed0")
    places += ("batch/abc/a03/seed0", "search/mine/0123456789ab/seed0", "läufe 1/tiefer/x00/seed0", "mine/seed0")
    for place in places:
        keep(tmp_path / f"{place}.json", replace(FULL, recipe=FULL.recipe | {"arguments": {"layers": "c8 G"}}))
    rows, text = rows_of(tmp_path)
    assert len(rows) == len(places)
    assert rows[0][:2] == ["A03 · Batch normalisation", "0"]
    assert rows[0][2:5] == [
        "full MNIST 60,000 images",
        "15",
        f"{100 * float(FULL.final):.2f} mean of the last 5 epochs: {100 * float(FULL.last5):.2f}",
    ]
    remarks = {row[0]: row[-1] for row in rows}
    assert [row[-1] for row in rows if row[1] == "2"] == ["an earlier run, with other settings or code"]
    assert "a recipe of one's own".replace("'", "&#x27;") in [row[-1] for row in rows]
    assert "B07 · More capacity (no dropout) b07_no_dropout" in remarks
    assert "A03 · Batch normalisation a03-own" in remarks
    assert "0123456789ab: c8 G" in remarks
    assert "batch/abc (1)" in text
    assert 'href="l%C3%A4ufe%201/tiefer/x00/seed0.json"' in text
    assert {link for link in re.findall('href="([^"]*)"', text) if ":" in link} == set()


def test_links_of_the_index_lead_to_files(tmp_path):
    for name in ("a03", "Meine Übung – it's 100% 🙂 #1?"):
        keep(tmp_path / name / "seed0.json", FULL)
        (tmp_path / name / "seed1.html").touch()
    links = re.findall('href="([^"#][^"]*)"', rows_of(tmp_path)[1])
    assert len(links) == 4
    assert all((tmp_path / unquote(link)).is_file() for link in links)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "seed0.json is not a run record"),
        ('{"rung": 3}', "seed0.json is not a run record"),
        (replace(FULL, epochs=[], clean_train_correct=None).to_json(), "unfinished: 0 of 15 epochs"),
        (replace(FULL, epochs=FULL.epochs[:3], clean_train_correct=None).to_json(), "unfinished: 3 of 15 epochs"),
    ],
)
def test_damaged_and_unfinished_records_are_listed_as_such(tmp_path, content, reason):
    write_atomically(tmp_path / "a03" / "seed0.json", content)
    ((*_, remark),), text = rows_of(tmp_path)
    assert reason in remark
    assert "1 run, 1 of them failed or unfinished" in text


def test_a_run_that_has_left_a_checkpoint_alone_is_unfinished(tmp_path):
    keep(tmp_path / "a03" / "seed1.json", FULL)
    for seed in (0, 1):
        write_atomically(tmp_path / "a03" / f"seed{seed}-0123456789ab.checkpoint", b"x")
    rows, _ = rows_of(tmp_path)
    assert [(row[1], row[-1].partition(":")[0]) for row in rows] == [("0", "unfinished"), ("1", "")]


def write_executed(path, *, count=1, outputs=()):
    cell = new_code_cell("1", execution_count=count, outputs=list(outputs))
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[cell]), path)


def test_why_an_execution_failed_is_read_from_the_notebook_that_it_left(tmp_path):
    error = new_output("error", ename="NameError", evalue="<b>ü</b>", traceback=[])
    write_executed(tmp_path / "00" / "seed0.ipynb")
    write_executed(tmp_path / "a03" / "seed0.ipynb", outputs=[error])
    write_executed(tmp_path / "a05" / "seed0.ipynb", count=None)
    write_atomically(tmp_path / "a06" / "seed0.ipynb", "[]")
    rows, _ = rows_of(tmp_path)
    assert [row[-1] for row in rows[:3]] == [
        "",
        "failed: NameError: &lt;b&gt;ü&lt;/b&gt;",
        "failed: seed0.ipynb: code cell 0 was never executed",
    ]
    assert rows[3][-1].startswith("failed: seed0.ipynb cannot be read")


def test_a_failure_that_no_notebook_tells_of_stays_until_the_next_execution(tmp_path, monkeypatch):
    source = tmp_path / "mine.ipynb"
    write_executed(source)

    def stopped(source, output, *_):
        write_executed(output)
        raise notebooks.NotRun("mine.ipynb was stopped after 5 s")

    monkeypatch.setattr(notebooks, "execute", stopped)
    run_one(Notebook(source), tmp_path / "runs", {})
    keep(tmp_path / "runs" / "a03" / "seed0.json", FULL)
    assert [row[-1] for row in rows_of(tmp_path / "runs")[0]] == ["", "failed: mine.ipynb was stopped after 5 s"]
    monkeypatch.setattr(notebooks, "execute", lambda source, output, *_: write_executed(output))
    run_one(Notebook(source), tmp_path / "runs", {})
    assert [row[-1] for row in rows_of(tmp_path / "runs")[0]] == ["", ""]


@pytest.mark.parametrize("record", [FULL, SAMPLE, replace(FULL, epochs=FULL.epochs[:1])], ids=["15", "2", "1"])
def test_a_curve_has_a_point_for_every_epoch_and_says_what_it_shows(record):
    image = ElementTree.fromstring(curve(record.test_accuracies))
    points = [tuple(map(float, point.split(","))) for point in image.find("polyline").get("points").split()]
    assert len(points) == len(record.epochs)
    assert all(0 <= x <= float(image.get("width")) and 0 <= y <= float(image.get("height")) for x, y in points)
    order = sorted(range(len(points)), key=lambda position: -points[position][1])
    accuracies = [record.test_accuracies[position] for position in order]
    assert accuracies == sorted(accuracies)
    assert image.get("role") == "img"
    for accuracy in (record.test_accuracies[0], record.final):
        assert f"{100 * float(accuracy):.2f} %" in image.get("aria-label")


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_the_ends_of_the_scale_can_be_drawn(accuracy):
    assert "nan" not in curve([accuracy, accuracy])


def test_the_page_fits_small_screens_and_dark_ones(tmp_path):
    keep(tmp_path / "a03" / "seed0.json", SAMPLE)
    raw = write_index(tmp_path).read_bytes()
    text = raw.decode()
    for part in (
        '<meta charset="utf-8">',
        "width=device-width",
        "prefers-color-scheme: dark",
        "max-width: 48rem",
        'lang="en"',
    ):
        assert part in text
    assert "sample<small>512 images" in text
