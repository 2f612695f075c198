"""Executed notebooks as HTML pages, whose links lead to what exists: another page, or the project's repository."""

import html
import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

from nbconvert import HTMLExporter

from lab.files import ROOT, write_atomically
from lab.ladders.rungs import find_notebooks
from lab.pages.render import project

TAG = re.compile(r"<a\b[^>]*>")
ATTRIBUTE = re.compile(r"""\s(href|data-link)=(["'])(.*?)\2""", re.DOTALL)
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|/", re.IGNORECASE)  # with a scheme, or from the root of a server
HEADING = re.compile(r"""<h[1-6][^>]*\sid=(["'])(.*?)\1""")
SEED = re.compile(r"seed(\d+)")
TEMPLATE = """\
{%- extends 'lab/index.html.j2' -%}
{% block data_png scoped %}
<div class="jp-RenderedImage jp-OutputArea-output {{ extra_class }}">
<img alt="{{ (output | get_metadata('alt', 'image/png') or '') | escape_html }}"
src="data:image/png;base64,{{ output.data['image/png'] | escape_html }}">
</div>
{% endblock data_png %}
"""  # nbconvert's, with words for images


def render_page(path):
    """Render an executed notebook to HTML beside it."""
    page, _ = HTMLExporter(raw_template=TEMPLATE).from_filename(str(path))
    write_atomically(path.with_suffix(".html"), page)


def mend_links(run_dir):
    """Point every relative link of every page in a folder of runs to an existing page, or to the repository.

    The original target stays in `data-link`, as a path from the project's folder, so that a page made later is
    found when links are mended again.
    """
    notebooks = find_notebooks()
    pages = {notebook.path: find_pages(run_dir, notebook.id) for notebook in notebooks}
    own = {notebook.path for notebook in notebooks if not notebook.is_numbered}
    for notebook in notebooks:
        for page in pages[notebook.path]:
            text = page.read_text(encoding="utf-8", errors="surrogateescape")
            mended = TAG.sub(lambda tag, page=page, path=notebook.path: _mend(tag[0], page, path, pages, own), text)
            if mended != text:
                write_atomically(page, mended)


def find_pages(run_dir, notebook_id):
    """The pages of a notebook, smallest seed first."""
    found = [path for path in (Path(run_dir) / notebook_id).glob("seed*.html") if SEED.fullmatch(path.stem)]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("seed")))


def _mend(tag, page, source, pages, own):
    """One tag `<a ...>` of the page of a notebook, with its link mended.

    Args:
        pages: paths of pages by path of their notebook.
        own: notebooks that are not in the repository.
    """
    given = {name: html.unescape(value) for name, _, value in ATTRIBUTE.findall(tag)}
    link = given.get("data-link", given.get("href", ""))
    if not link or ELSEWHERE.match(link) or "anchor-link" in tag:
        return tag
    path, mark, fragment = link.partition("#")
    base = ROOT if "data-link" in given else source.parent
    target = Path(os.path.normpath(base / unquote(path))) if path else source
    found = page if target == source else _choose(page, pages.get(target, []))
    if found:
        address = _to_page(page, found, fragment)
    else:
        address = None if target in own else _to_repository(target, mark + fragment)
    kept = _quote(os.path.relpath(target, ROOT)) + mark + fragment
    href = f' href="{html.escape(address)}"' if address else ""
    return f'<a{href} data-link="{html.escape(kept)}"{ATTRIBUTE.sub("", tag)[2:]}'


def _choose(page, candidates):
    """The page of the same seed, else the first; None without any."""
    return next((path for path in candidates if path.name == page.name), candidates[0] if candidates else None)


def _to_page(page, target, fragment):
    """A link to a heading of a page; GitHub spells its name in lower case, the page as written."""
    address = "" if target == page else _quote(os.path.relpath(target, page.parent))
    if not fragment:
        return address or "#"
    text = target.read_text(encoding="utf-8", errors="surrogateescape")
    names = {unquote(name).lower(): html.unescape(name) for _, name in HEADING.findall(text)}
    return f"{address}#{names.get(unquote(fragment).lower(), fragment)}"


def _to_repository(target, fragment):
    """The address of a file or folder of the project; None if it does not exist."""
    if not target.is_relative_to(ROOT) or not target.exists():
        return None
    settings, kind = project(), "tree" if target.is_dir() else "blob"
    return f"{settings['repository']}/{kind}/{settings['version']}/{_quote(target.relative_to(ROOT))}{fragment}"


def _quote(path):
    return quote(os.fsencode(Path(path).as_posix()))
