"""The address and version of the project, from pyproject.toml alone, and what is written from them."""

import tomllib
from urllib.parse import quote

from lab.files import ROOT

COLAB, BINDER = "https://colab.research.google.com/assets/colab-badge.svg", "https://mybinder.org/badge_logo.svg"

SETUP = """\
# Setup: find the project, or fetch it on Colab. The same in every notebook; skip it when reading.
import subprocess
import sys
from pathlib import Path

FOLDER, REPOSITORY, VERSION = "{folder}", "{repository}", "{version}"
places = [Path.cwd(), *Path.cwd().parents, Path.cwd() / FOLDER]
root = next((place for place in places if (place / "model.py").exists() and (place / "lab").is_dir()), None)
if root is None and "google.colab" in sys.modules:
    clone = f"git -c advice.detachedHead=false clone --quiet --depth 1 --branch {{VERSION}} {{REPOSITORY}} {{FOLDER}}"
    failed, said = subprocess.getstatusoutput(f"GIT_TERMINAL_PROMPT=0 {{clone}}")
    if failed:
        reason = next((line for line in said.splitlines() if "fatal" in line), said)
        sys.exit(f"{{VERSION}} of {{REPOSITORY}}: {{reason}}. Check network, address and tag; a fork: see README")
    root = Path.cwd() / FOLDER
if root is None:
    raise FileNotFoundError(f"model.py is not above {{Path.cwd()}}. Get the project: git clone {{REPOSITORY}}")
sys.path[:0] = [] if str(root) in sys.path else [str(root)]
import model
import utils"""

CITATION = """\
# written by `make render`
cff-version: 1.2.0
message: If you use these measurements or notebooks, please cite them.
title: MNIST ladders
abstract: "{description}"
type: software
authors:
  - name: The authors of MNIST ladders
repository-code: {repository}
license: {license}
version: {number}
keywords:
  - MNIST
  - convolutional networks
  - reproducibility
  - teaching
"""


def _settings():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def project():
    """Folder, repository address and version, from pyproject.toml: the one place that holds them."""
    settings = _settings()
    return {
        "folder": settings["name"],
        "repository": settings["urls"]["Repository"],
        "version": f"v{settings['version']}",
    }


def setup_cell():
    return SETUP.format(**project())


def citation():
    """CITATION.cff."""
    settings = _settings()
    named = {name: settings[name] for name in ("description", "license")}
    return CITATION.format(number=settings["version"], repository=project()["repository"], **named)


def badges(path):
    """Links that open a notebook where it can be run without installing anything."""
    repository, version = project()["repository"].removeprefix("https://github.com/"), project()["version"]
    colab = f"https://colab.research.google.com/github/{repository}/blob/{version}/{path}"
    binder = f"https://mybinder.org/v2/gh/{repository}/{version}?labpath={quote(path, safe='')}"
    return [f"[![Open in Colab]({COLAB})]({colab})", f"[![Open in Binder]({BINDER})]({binder})"]
