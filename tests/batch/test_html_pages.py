"""Pages of executed notebooks: where their links lead, whatever was executed when."""

import html
import re
from urllib.parse import unquote

import matplotlib.pyplot as plt
import nbformat
import pytest
from bs4 import BeautifulSoup
from IPython.core.formatters import DisplayFormatter

from lab.batch.html_pages import mend_links, render_page
from lab.ladders import rungs
from lab.ladders.rungs import find_notebooks
from lab.pages.picture import Picture
from lab.pages.project import project
from lab.site import links

REPOSITORY = "{repository}/blob/{version}".format(**project())
NEXT = "a06_augmentation.ipynb"


def write_page(run_dir, name, seed, *links, headings=()):
    path = run_dir / name / f"seed{seed}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    body = "".join(f'<h2 id="{heading}">x</h2>' for heading in headings)
    body += "".join(f'<a class="x" href="{html.escape(link)}" target="_self">text</a>' for link in links)
    path.write_text(f"<p>ü</p>{body}", encoding="utf-8")
    return path


def links_of(page):
    tags = re.findall(r"<a[^>]*>", page.read_text(encoding="utf-8"))
    return [html.unescape(match[1]) if (match := re.search('href="([^"]*)"', tag)) else None for tag in tags]


@pytest.mark.parametrize(
    ("link", "address"),
    [
        (NEXT, f"{REPOSITORY}/notebooks/a_eight_thousand/{NEXT}"),
        ("../00_start_here.ipynb#the-map", f"{REPOSITORY}/notebooks/00_start_here.ipynb#the-map"),
        ("./../98_the_search.ipynb", f"{REPOSITORY}/notebooks/98_the_search.ipynb"),
        ("../../README.md#run-it", f"{REPOSITORY}/README.md#run-it"),
        ("../../lab/", f"{REPOSITORY.replace('/blob/', '/tree/')}/lab"),
        ("gone.ipynb", None),
        ("../../../elsewhere.txt", None),
        ("https://arxiv.org/abs/1?x=1&y=2", "https://arxiv.org/abs/1?x=1&y=2"),
        ("mailto:x@example.org", "mailto:x@example.org"),
    ],
)
def test_without_other_pages_links_lead_to_the_repository(tmp_path, link, address):
    page = write_page(tmp_path, "a05", 0, link)
    for _ in range(2):
        mend_links(tmp_path)
        assert links_of(page) == [address]
    assert 'class="x"' in page.read_text(encoding="utf-8")


def test_links_lead_to_pages_as_soon_as_they_are_there(tmp_path):
    """The same seed if it is there, else the first; back to the repository when pages are removed."""
    page = write_page(tmp_path, "a05", 3, NEXT)
    mend_links(tmp_path)
    assert links_of(page) == [f"{REPOSITORY}/notebooks/a_eight_thousand/{NEXT}"]
    for seed, expected in {10: 10, 4: 4, 3: 3}.items():
        write_page(tmp_path, "a06", seed)
        mend_links(tmp_path)
        assert links_of(page) == [f"../a06/seed{expected}.html"]
        assert (page.parent / links_of(page)[0]).is_file()
    for other in (tmp_path / "a06").iterdir():
        other.unlink()
    mend_links(tmp_path)
    assert links_of(page) == [f"{REPOSITORY}/notebooks/a_eight_thousand/{NEXT}"]


@pytest.mark.parametrize(
    ("fragment", "name"), [("the-map", "The-map"), ("zähler-1", "Z%C3%A4hler-1"), ("none", "none")]
)
def test_links_to_headings_use_the_names_of_the_page(tmp_path, fragment, name):
    write_page(tmp_path, "00", 0, headings=("The-map", "Z%C3%A4hler-1"))
    page = write_page(
        tmp_path, "a05", 0, f"../00_start_here.ipynb#{fragment}", f"#{fragment}", headings=("The-map", "Z%C3%A4hler-1")
    )
    mend_links(tmp_path)
    assert links_of(page) == [f"../00/seed0.html#{name}", f"#{name}"]


def test_notebooks_of_readers_are_linked_where_their_pages_are_and_else_not_at_all(tmp_path, monkeypatch):
    folder, runs = tmp_path / "notebooks", tmp_path / "läufe 1"
    folder.mkdir()
    for name in ("a05_capacity.ipynb", "Meine Übung.ipynb"):
        (folder / name).write_text('{"cells": [], "metadata": {}}', encoding="utf-8")
    monkeypatch.setattr(rungs, "NOTEBOOKS", folder)
    monkeypatch.setattr(links, "ROOT", tmp_path)
    page = write_page(runs, "a05", 0, "Meine%20%C3%9Cbung.ipynb")
    mend_links(runs)
    assert links_of(page) == [None]
    other = write_page(runs, "Meine Übung", 0, "a05_capacity.ipynb")
    mend_links(runs)
    assert (page.parent / unquote(links_of(page)[0])).resolve() == other
    assert links_of(other) == ["../a05/seed0.html"]


def test_every_relative_link_of_the_project_leads_somewhere(tmp_path):
    """As nbconvert writes them, from the texts as they lie in the repository."""
    texts = {
        notebook.id: "".join("".join(cell["source"]) for cell in notebook.cells if cell["cell_type"] == "markdown")
        for notebook in find_notebooks()
    }
    for name, text in texts.items():
        write_page(tmp_path, name, 0, *re.findall(r"\]\(([^)\s]+)\)", text))
    mend_links(tmp_path)
    for name in texts:
        page = tmp_path / name / "seed0.html"
        for link in links_of(page):
            assert link is not None
            assert link.startswith(("https://", "#")) or (page.parent / unquote(link).partition("#")[0]).is_file(), link


def test_a_page_has_the_words_of_its_images(tmp_path):
    data, metadata = DisplayFormatter().format(Picture(plt.figure(), 'A line "rises" from 1 to 2'))
    output = nbformat.v4.new_output("execute_result", data, execution_count=1, metadata=metadata)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output], execution_count=1)])
    nbformat.write(notebook, tmp_path / "seed0.ipynb")
    render_page(tmp_path / "seed0.ipynb")
    (image,) = BeautifulSoup((tmp_path / "seed0.html").read_text(encoding="utf-8"), "html.parser").find_all("img")
    assert image["alt"] == 'A line "rises" from 1 to 2'
    assert image["src"] == f"data:image/png;base64,{data['image/png']}".rstrip()
