"""Links of a page, led to what exists: another page, or the project's repository."""

import html
import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

from lab.files import ROOT
from lab.pages.project import project

TAG = re.compile(r"<a\b[^>]*>")
ATTRIBUTE = re.compile(r"""\s(href|data-link)=(["'])(.*?)\2""", re.DOTALL)
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|/", re.IGNORECASE)  # with a scheme, or from the root of a server
HEADING = re.compile(r"""<h[1-6][^>]*\sid=(["'])(.*?)\1""")
OWN = ("anchor-link", 'class="home"', 'class="closer"')  # marks of the links that a page makes itself


def read_page(path):
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def mend(text, page, source, pages, *, private=(), read=read_page):
    """Point every relative link of a page to an existing page, or to the repository.

    The original target stays in `data-link`, as a path from the project's folder, so that a page made later is
    found when links are mended again.

    Args:
        text: HTML of the page.
        page: its path.
        source: path of the file that it was made from; links are relative to that.
        pages: for every file of the project that has pages, by path, a list of their paths.
        private: files that are not in the repository.
        read: gives the HTML of one of these pages, whose headings a link may name.
    """
    return TAG.sub(lambda tag: _mend(tag[0], page, source, pages, private, read), text)


def _mend(tag, page, source, pages, private, read):
    given = {name: html.unescape(value) for name, _, value in ATTRIBUTE.findall(tag)}
    link = given.get("data-link", given.get("href", ""))
    if not link or ELSEWHERE.match(link) or any(mark in tag for mark in OWN):
        return tag
    path, mark, fragment = link.partition("#")
    base = ROOT if "data-link" in given else source.parent
    target = Path(os.path.normpath(base / unquote(path))) if path else source
    found = page if target == source else _choose(page, pages.get(target, []))
    if found:
        address = _to_page(page, found, fragment, read)
    else:
        address = None if target in private else _to_repository(target, mark + fragment)
    kept = _quote(os.path.relpath(target, ROOT)) + mark + fragment
    href = f' href="{html.escape(address)}"' if address else ""
    return f'<a{href} data-link="{html.escape(kept)}"{ATTRIBUTE.sub("", tag)[2:]}'


def _choose(page, candidates):
    """The page of the same seed, else the first; None without any."""
    return next((path for path in candidates if path.name == page.name), candidates[0] if candidates else None)


def _to_page(page, target, fragment, read):
    """A link to a heading of a page; GitHub spells its name in lower case and without marks, the page as written."""
    address = "" if target == page else _quote(os.path.relpath(target, page.parent))
    if not fragment:
        return address or "#"
    names = {_spelled(html.unescape(name)): html.unescape(name) for _, name in HEADING.findall(read(target))}
    return f"{address}#{names.get(_spelled(fragment), fragment)}"


def _spelled(name):
    return re.sub(r"[^\w-]", "", unquote(name)).lower()


def _to_repository(target, fragment):
    """The address of a file or folder of the project; None if it does not exist."""
    if not target.is_relative_to(ROOT) or not target.exists():
        return None
    settings, kind = project(), "tree" if target.is_dir() else "blob"
    return f"{settings['repository']}/{kind}/{settings['version']}/{_quote(target.relative_to(ROOT))}{fragment}"


def _quote(path):
    return quote(os.fsencode(Path(path).as_posix()))
