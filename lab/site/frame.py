"""Notebooks as HTML, and the frame around every page; both from templates in web/."""

import functools
import re

from bs4 import BeautifulSoup
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from nbconvert import HTMLExporter

from lab.files import ROOT

WEB = ROOT / "web"
LEAST_ROWS = 4  # of a table that can be sorted
LONGEST_LOG, LONGEST_OUTPUT = 8, 30  # lines that are not folded


@functools.cache
def template(name):
    """One of the templates in web/; a name that it uses and nobody gives is an error."""
    return Environment(loader=FileSystemLoader(WEB), undefined=StrictUndefined).get_template(name)


@functools.cache
def exporter():
    return HTMLExporter(raw_template=(WEB / "cells.html.j2").read_text(encoding="utf-8"))


def to_html(path):
    """The cells of a notebook as a BeautifulSoup: what is wide scrolls in a box, long logs are folded, diffs coloured,
    badges from elsewhere are words.

    Raises: as `nbformat.read`.
    """
    text, _ = exporter().from_filename(str(path))
    soup = prepare_tables(BeautifulSoup(text, "html.parser"))
    for badge in soup.find_all("img", src=lambda source: source.startswith(("http:", "https:"))):
        badge.replace_with(badge.get("alt", ""))
    for block in soup.find_all("pre"):
        block["tabindex"] = "0"  # it scrolls, so that a keyboard must be able to reach it
    for block in soup.select("pre.output"):
        if not _colour_diff(block, soup):  # a step is its diff, which stays open
            _fold(block, soup)
    return soup


def _colour_diff(block, soup):
    """Mark the lines of a diff as Pygments marks them. Returns whether it is one."""
    lines = block.get_text().splitlines(keepends=True)
    if any(line[0] not in "+- ⋯\n" for line in lines) or not any(line[0] in "+-" for line in lines):
        return False
    block["class"] = [*block["class"], "highlight"]
    block.clear()
    for line in lines:
        kind = {"+": "gi", "-": "gd"}.get(line[0])
        part = soup.new_tag("span", attrs={"class": kind}) if kind else soup.new_string(line)
        if kind:
            part.string = line
        block.append(part)
    return True


def _fold(block, soup):
    """Fold a long log, under a line that says what it is."""
    text = block.get_text().strip()
    lines, is_log = text.splitlines(), text.startswith("epoch ")
    if len(lines) <= (LONGEST_LOG if is_log else LONGEST_OUTPUT):
        return
    words = next((" ".join(line.split()) for line in lines if re.search("[A-Za-z]", line)), "")
    summary = soup.new_tag("summary")
    summary.string = "Log of the training, epoch by epoch" if is_log else f"{len(lines)} lines: {words} …"
    block.wrap(soup.new_tag("details", attrs={"class": "output"})).insert(0, summary)
    block["class"] = [name for name in block["class"] if name != "output"]


def prepare_tables(soup):
    """Make tables readable on a phone and for a screen reader. Returns the soup.

    Each gets a box in which it scrolls, columns of words are marked, and long ones can be sorted.
    """
    for style in soup.select("style[scoped]"):
        style.decompose()  # of pandas, for any page
    for table in soup.find_all("table"):
        table.attrs.pop("border", None)
        table.wrap(
            soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0", "role": "group", "aria-label": "table"})
        )
        _name_rows(table)
        _mark_words(table)
        spans = table.find(rowspan=True) or table.find(colspan=True)
        if "dataframe" in table.get("class", []) and len(table.select("tbody tr")) >= LEAST_ROWS and not spans:
            table["class"] = [*table["class"], "sortable"]
        for cell in table.find_all("th"):
            if not cell.get_text(strip=True):
                cell.name = "td"  # a heading without text says nothing to a screen reader
    return soup


def _name_rows(table):
    """A table in Markdown must begin with a heading; where that is a name with its value, every row has a name."""
    heads, body = table.find("thead"), table.find("tbody")
    cells = heads.find_all("th") if heads else []
    if body and len(cells) == 2 and cells[1].get_text(strip=True)[:1].isdigit():
        cells[1].name = "td"
        body.insert(0, heads.tr.extract())
        heads.decompose()
        for row in body.find_all("tr"):
            name = row.find(["td", "th"])
            name.name, name["scope"] = "th", "row"


def _mark_words(table):
    """Give cells of a data frame whose column is not one of numbers the class "words"."""
    if "dataframe" not in table.get("class", []):
        return
    rows = [row.find_all(["td", "th"]) for row in table.find_all("tr")]
    bodies = [row.find_all(["td", "th"]) for row in table.select("tbody tr")]
    for column in range(max(map(len, bodies), default=0)):
        texts = [row[column].get_text(strip=True) for row in bodies if column < len(row)]
        if all(re.match(r"[-+–−.\d\[]|$", text) for text in texts):
            continue
        for row in rows:
            if column < len(row):
                row[column]["class"] = [*row[column].get("class", []), "words"]


def frame(title, body, *, kind="", description="", root=None, here="", neighbours=(None, None), head="", **further):
    """A whole page.

    Args:
        body: HTML of its main part.
        kind: class of the main part: "wide", "runs".
        root: the address of the site's folder from the page; None for a page that stands alone, with its style in it.
        here: its own address from the site's folder.
        neighbours: pairs of address and title of the pages before and after it, or None.
        further: `map`, a list of ladders with pairs of address and title; `up`, a link of a page that stands alone;
            `scripts` at the end.
    """
    alone = root is None
    before, after = neighbours
    settings = {"map": [], "up": "", "scripts": ""} | further
    return template("page.html.j2").render(
        title=title,
        body=body,
        kind=kind,
        description=description,
        root=root,
        here=here,
        before=before,
        after=after,
        head=head,
        style=(WEB / "site.css").read_text(encoding="utf-8") if alone else "",
        script=(WEB / "site.js").read_text(encoding="utf-8") if alone else "",
        **settings,
    )
