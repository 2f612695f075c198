"""Notebooks as HTML, and the frame around every page; both from templates in web/."""

import functools

from bs4 import BeautifulSoup
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from nbconvert import HTMLExporter

from lab.files import ROOT

WEB = ROOT / "web"
LEAST_ROWS = 4  # of a table that can be sorted


@functools.cache
def template():
    """The frame; a name that it uses and nobody gives is an error."""
    return Environment(loader=FileSystemLoader(WEB), undefined=StrictUndefined).get_template("page.html.j2")


@functools.cache
def exporter():
    return HTMLExporter(raw_template=(WEB / "cells.html.j2").read_text(encoding="utf-8"))


def to_html(path):
    """The cells of a notebook as a BeautifulSoup: what is wide scrolls in a box, badges from elsewhere are words.

    Raises: as `nbformat.read`.
    """
    text, _ = exporter().from_filename(str(path))
    soup = prepare_tables(BeautifulSoup(text, "html.parser"))
    for badge in soup.find_all("img", src=lambda source: source.startswith(("http:", "https:"))):
        badge.replace_with(badge.get("alt", ""))
    for block in soup.find_all("pre"):
        block["tabindex"] = "0"  # it scrolls, so that a keyboard must be able to reach it
    return soup


def prepare_tables(soup):
    """Give every table a box in which it scrolls on a phone, and mark those that can be sorted. Returns the soup."""
    for table in soup.find_all("table"):
        table.attrs.pop("border", None)
        table.wrap(
            soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0", "role": "group", "aria-label": "table"})
        )
        spans = table.find(["td", "th"], attrs={"rowspan": True}) or table.find(["td", "th"], attrs={"colspan": True})
        heads, body = table.find("thead"), table.find("tbody")
        if heads and body and len(heads.find_all("tr")) == 1 and len(body.find_all("tr")) >= LEAST_ROWS and not spans:
            table["class"] = [*table.get("class", []), "sortable"]
        for cell in table.find_all("th"):
            if not cell.get_text(strip=True) and not cell.find("img"):
                cell.name = "td"  # a heading without text says nothing to a screen reader
    return soup


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
    return template().render(
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
