"""Pages of executed notebooks in a folder of runs."""

import re
from pathlib import Path

from lab.files import write_atomically
from lab.ladders.rungs import find_notebooks
from lab.site.frame import frame, to_html
from lab.site.links import mend, read_page

SEED = re.compile(r"seed(\d+)")


def render_page(path):
    """Render an executed notebook to HTML beside it, in one file with its style and figures."""
    soup = to_html(path)
    heading = soup.find(["h1", "h2"])
    title = heading.get_text().removesuffix("¶") if heading else path.stem
    write_atomically(path.with_suffix(".html"), frame(title, soup, up="../index.html"))


def mend_links(run_dir):
    """Point every relative link of every page in a folder of runs to an existing page, or to the repository."""
    notebooks = find_notebooks()
    pages = {notebook.path: find_pages(run_dir, notebook.id) for notebook in notebooks}
    private = {notebook.path for notebook in notebooks if not notebook.is_numbered}
    for notebook in notebooks:
        for page in pages[notebook.path]:
            text = read_page(page)
            mended = mend(text, page, notebook.path, pages, private=private)
            if mended != text:
                write_atomically(page, mended)


def find_pages(run_dir, notebook_id):
    """The pages of a notebook, smallest seed first."""
    found = [path for path in (Path(run_dir) / notebook_id).glob("seed*.html") if SEED.fullmatch(path.stem)]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("seed")))
