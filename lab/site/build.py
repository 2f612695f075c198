"""The site: every notebook as a page, a landing page, a search, and the page that reads one's own digit.

It is made from the notebooks as they lie in the repository; nothing is run. It needs nothing from elsewhere, neither a
server nor a network. Figures are files beside the pages, so that a page is soon there.
"""

import base64
import io
import json
import os
import re
import shutil
from pathlib import Path

from bs4 import BeautifulSoup
from nbconvert.filters import markdown2html
from PIL import Image

from lab.files import ROOT
from lab.ladders.goals import LADDERS
from lab.ladders.rungs import NOTEBOOKS, find_notebooks, find_rung, find_rungs
from lab.ladders.weights import load_weights
from lab.numbers import percent
from lab.pages.front_page import MODES, front_words
from lab.pages.render import BLOCKS, pages
from lab.site.frame import WEB, frame, prepare_tables, template, to_html
from lab.site.links import mend
from lab.site.networks import as_script

HEADING = re.compile(r"h[1-3]")
DRAWN = ("e02", "e01", "a09")  # networks of the drawing page, the first there from the beginning
DESCRIPTION = "MNIST read by ever smaller networks, one notebook and one idea at a time, every number with its seeds."


def build_site(folder):
    """Write the site into a folder, in place of what is there. Returns the number of pages.

    Raises: FileExistsError, if the folder holds something else than a site.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "assets" / "site.css").exists():
        raise FileExistsError(f"{folder} holds something that is no site, and would be lost: give another folder")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "assets").mkdir(parents=True)
    notebooks = pages()
    places = {notebook.path: folder / _address(notebook) for notebook in notebooks}
    bodies = {places[notebook.path]: _body(notebook, folder) for notebook in notebooks}
    texts = {page: str(body) for page, body in bodies.items()}
    known, ladders = {path: [place] for path, place in places.items()}, _ladders(notebooks)
    for position, notebook in enumerate(notebooks):
        page = places[notebook.path]
        around = [notebooks[at] if 0 <= at < len(notebooks) else None for at in (position - 1, position + 1)]
        body = mend(texts[page], page, notebook.path, known, read=texts.get)
        neighbours = [other and (_address(other), other.title) for other in around]
        kind = "" if notebook.is_rung or position == 0 else "wide"
        settings = {"here": _address(notebook), "neighbours": neighbours, "map": ladders, "kind": kind}
        _write(page, frame(notebook.title, body, root=_root(notebook), description=DESCRIPTION, **settings))
    _write(folder / "index.html", _landing(folder, known, texts, ladders))
    _write(folder / "draw.html", _drawing_page(folder, ladders))
    entries = [entry for notebook in notebooks for entry in search_entries(notebook, bodies[places[notebook.path]])]
    entries += [_entry_of(folder, *page) for page in (("index.html", "MNIST ladders"), ("draw.html", "Draw a digit"))]
    _write(folder / "assets" / "search.js", f"globalThis.SEARCH = {json.dumps(entries, ensure_ascii=False)};\n")
    for name in ("site.css", "site.js", "network.js", "digit.js", "draw.js"):
        _write(folder / "assets" / name, _without_comments((WEB / name).read_text(encoding="utf-8")))
    return len(notebooks) + 2


def _address(notebook):
    return notebook.path.relative_to(NOTEBOOKS).with_suffix(".html").as_posix()


def _root(notebook):
    """The address of the site's folder from a page: "", or "../"."""
    return "../" * _address(notebook).count("/")


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _without_comments(script):
    """A script without indentation and without the lines that only say why: a quarter less to load."""
    lines = (line.strip() for line in script.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("//"))


def _ladders(notebooks):
    """What the map shows: names of ladders, each with addresses and titles of its pages."""
    names = {letter: f"{letter.upper()} · {ladder.title}" for letter, ladder in LADDERS.items()}
    groups = {}
    for notebook in notebooks:
        groups.setdefault(names.get(notebook.id[0], "Across the ladders"), []).append(
            (_address(notebook), notebook.title)
        )
    return [*groups.items()]


# -------------------------------------------------------------------------------------------- notebooks


def _body(notebook, folder):
    """The cells of a notebook, with figures as files."""
    soup = to_html(notebook.path)
    _link_rungs(soup, notebook)
    for number, image in enumerate(soup.find_all("img", src=re.compile("^data:")), start=1):
        path = folder / "figures" / f"{notebook.id}-{number}.webp"
        width, height = _keep_figure(image["src"], path)
        image.attrs |= {"src": f"{_root(notebook)}figures/{path.name}", "width": str(width), "height": str(height)}
        image.wrap(soup.new_tag("a", attrs={"href": image["src"], "class": "closer"}))  # on a phone: to look closely
    return soup


def _link_rungs(soup, notebook):
    """Let every cell of a table that is the name of a rung lead to it."""
    rungs = {rung.id: rung for rung in find_rungs()}
    for cell in soup.select("table.dataframe tbody :is(th, td)"):
        rung = rungs.get(cell.get_text(strip=True))
        if rung and rung.id != notebook.id:
            link = soup.new_tag("a", attrs={"href": os.path.relpath(rung.path, notebook.path.parent)})
            link.string = rung.id
            cell.clear()
            cell.append(link)


def _keep_figure(source, path):
    """Write an image to a smaller file without loss. Returns its width and height in pixels."""
    picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    path.parent.mkdir(exist_ok=True)
    picture.save(path, lossless=True)
    return picture.size


def search_entries(notebook, body):
    """What a search finds: every heading of a page with the text below it, up to the next heading."""
    entries = []
    for part in body.select("section.text > *, details > summary, div.output table"):
        if HEADING.fullmatch(part.name):
            heading = part.get_text().removesuffix("¶")
            mark = f"#{part['id']}" if entries else ""
            entry = {"title": notebook.title, "heading": heading, "address": f"{_address(notebook)}{mark}", "text": ""}
            entries.append(entry)
        elif entries and part.name != "table" and "Open in Colab" not in part.get_text():
            entries[-1]["text"] += " ".join(part.get_text(" ", strip=True).split()) + " "
    return entries


def _entry_of(folder, address, title):
    """What a search finds of a page that is no notebook."""
    main = BeautifulSoup((folder / address).read_text(encoding="utf-8"), "html.parser").find("main")
    return {"title": title, "heading": title, "address": address, "text": " ".join(main.get_text(" ").split())}


# ------------------------------------------------------------------------------------ pages of their own

LANDING = {"map": "00", "first": "a00", "all": "99", "accurate": "e01", "small": "e02", "soon": "e03"}


def _landing(folder, known, texts, ladders):
    """The landing page: its texts are README's, its links written as there, from the root."""
    opening = (ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")[1]
    blocks = {name: BLOCKS[name](None) for name in ("front", "claims", "ladders", "frontier", "tutorials")}
    for mode in MODES:
        shutil.copy(ROOT / "results" / f"front_page_{mode}.svg", folder / "assets" / f"front_{mode}.svg")
    body = template("index.html.j2").render(
        pictures={mode: f"assets/front_{mode}.svg" for mode in MODES},
        words=front_words(),
        smallest=_size_of(DRAWN[0]),
        **{name: markdown2html(text) for name, text in {"opening": opening, **blocks}.items()},
        **{name: find_notebooks([id_])[0].path.relative_to(ROOT).as_posix() for name, id_ in LANDING.items()},
    )
    pages = known | {ROOT / "draw.html": [folder / "draw.html"]}
    body = str(prepare_tables(BeautifulSoup(body, "html.parser")))
    body = mend(body, folder / "index.html", ROOT / "index.html", pages, read=texts.get)
    return frame("MNIST ladders", body, kind="wide", root="", here="index.html", description=DESCRIPTION, map=ladders)


def _drawing_page(folder, ladders):
    choices = []
    for name in DRAWN:
        rung = find_rung(name)
        words = f"{name.upper()}: {_size_of(name)} parameters, {percent(rung.summary.mean)} of MNIST"
        choices.append({"name": name, "words": words})
        _write(folder / "assets" / f"{name}.js", as_script(name, load_weights(name), {}))
    body = template("draw.html").render(smallest=_size_of(DRAWN[0]))
    scripts = f'<script type="application/json" id="choices">{json.dumps(choices)}</script>\n' + "\n".join(
        f'<script src="assets/{name}.js"></script>' for name in ("network", "digit", DRAWN[0], "draw")
    )
    settings = {"root": "", "here": "draw.html", "map": ladders, "scripts": scripts}
    return frame("Draw a digit", body, kind="wide", description="A small network reads what you draw.", **settings)


def _size_of(name):
    return f"{find_rung(name).recipe.parameters:,}"
