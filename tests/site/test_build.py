"""The site as files: every page is there, leads somewhere, needs nothing from elsewhere, and has words for figures."""

import json
import re
from urllib.parse import unquote

import pytest
from bs4 import BeautifulSoup
from PIL import Image

from lab.ladders.rungs import find_notebooks, find_rungs
from lab.pages.project import project
from lab.site.build import build_site

pytestmark = pytest.mark.xdist_group("site")

MOST_BYTES = 400_000  # of a page
MOST_BYTES_DRAWING = 60_000  # of the drawing page with all that it loads


@pytest.fixture(scope="session")
def parsed(site):
    return {
        path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in sorted(site.rglob("*.html"))
    }


def test_every_notebook_has_a_page_with_its_title(site, parsed):
    numbered = [notebook for notebook in find_notebooks() if notebook.is_numbered]
    titles = {page.h1.get_text().removesuffix("¶") for page in parsed.values()}
    assert titles == {notebook.title for notebook in numbered} | {"MNIST ladders", "Draw a digit"}
    assert len(parsed) == len(numbered) + 2


def test_relative_links_lead_to_files_and_headings(site, parsed):
    ids = {path.resolve(): {part["id"] for part in page.find_all(id=True)} for path, page in parsed.items()}
    broken = []
    for path, page in parsed.items():
        for link in page.find_all("a"):
            address, _, fragment = link.get("href", "missing").partition("#")
            if re.match("https?:|mailto:", address):
                continue
            target = (path.parent / unquote(address)).resolve() if address else path.resolve()
            if target.suffix == ".webp" and target.is_file():
                continue
            if target not in ids or (
                fragment and unquote(fragment) not in ids[target] | {unquote(each) for each in ids[target]}
            ):
                broken.append(f"{path.relative_to(site)}: {link.get('href')}")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(site, parsed):
    sources = [
        part.get("src") or part.get("href") or part.get("srcset")
        for page in parsed.values()
        for part in page.find_all(["img", "script", "link", "source", "iframe", "video"])
    ]
    sources += re.findall(
        r"(?:url\(|@import)\s*['\"]?([^)'\"]+)", (site / "assets" / "site.css").read_text(encoding="utf-8")
    )
    assert [source for source in sources if source and re.match("https?:|//|data:", source)] == []
    for script in site.rglob("*.js"):
        if script.name != "search.js":  # which holds texts, links among them
            assert not re.search(r"https?://|fetch\(|XMLHttpRequest|import\(", script.read_text(encoding="utf-8")), (
                script
            )


def test_pages_are_small(site):
    sizes = {path.relative_to(site).as_posix(): path.stat().st_size for path in site.rglob("*.html")}
    assert {name: size for name, size in sizes.items() if size > MOST_BYTES} == {}
    loaded = [
        site / "draw.html",
        *(site / "assets" / name for name in ("site.css", "site.js", "network.js", "digit.js")),
    ]
    loaded += [site / "assets" / name for name in ("draw.js", "e02.js")]
    assert sum(path.stat().st_size for path in loaded) < MOST_BYTES_DRAWING


def test_figures_are_those_of_the_notebooks_with_their_words(site, parsed):
    for notebook in find_notebooks():
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        wanted = [
            output["metadata"].get("image/png", {}).get("alt") or ""
            for output in outputs
            if "image/png" in output.get("data", {})
        ]
        (page,) = [path for path in parsed if path.stem == notebook.path.stem]
        images = parsed[page].find("main").find_all("img")
        assert [image["alt"] for image in images] == wanted
        for image in images:
            with Image.open(page.parent / image["src"]) as picture:
                assert picture.size == (int(image["width"]), int(image["height"]))
            assert image.parent["href"] == image["src"]  # to be seen as large as it is


def test_logs_are_folded_diffs_are_not_and_tables_scroll(parsed):
    for path, page in parsed.items():
        assert not page.select("details pre:has(> .gi, > .gd)"), path
        shown = [block.get_text().strip() for block in page.select("pre.output") if not block.select(".gi, .gd")]
        assert [text for text in shown if len(text.splitlines()) > (8 if text.startswith("epoch ") else 30)] == [], path
        assert all("scroll" in table.parent["class"] for table in page.find_all("table")), path
    (rungs,) = [page for path, page in parsed.items() if path.stem == "99_all_ladders"]
    named = {link.get_text(): link["href"] for link in rungs.select_one("table.sortable").select("tbody a")}
    assert named.keys() == {rung.id for rung in find_rungs()}
    assert named["a07"] == "a_eight_thousand/a07_one_cycle.html"


def test_pages_follow_each_other(site, parsed):
    """From the first notebook the links to the next lead through all of them."""
    path, seen = site / "00_start_here.html", []
    while path:
        seen.append(path)
        after = parsed[path].find("a", rel="next")
        following = after and (path.parent / after["href"]).resolve()
        if following:
            assert (following.parent / parsed[following].find("a", rel="prev")["href"]).resolve() == path
        path = following
    assert len(seen) == len(parsed) - 2


def test_the_search_knows_every_heading(site, parsed):
    text = (site / "assets" / "search.js").read_text(encoding="utf-8")
    entries = json.loads(text.removeprefix("globalThis.SEARCH = ").removesuffix(";\n"))
    assert {entry["address"].partition("#")[0] for entry in entries} == {
        path.relative_to(site).as_posix() for path in parsed
    }
    for entry in entries:
        name, _, mark = entry["address"].partition("#")
        assert not mark or parsed[site / name].find(id=mark), entry["address"]
    assert any("dying" in entry["text"] or "dropout" in entry["text"].lower() for entry in entries)


def test_what_is_no_site_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds something that is no site"):
        build_site(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_the_repository_is_that_of_the_project(parsed):
    texts = [str(page) for page in parsed.values()]
    assert all(project()["repository"] in text for text in texts if '<main id="main" class="">' in text)
