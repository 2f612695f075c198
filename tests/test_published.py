"""What GitHub, Binder and editors read: every file fits the schema of whoever reads it."""

import json
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from lab.files import ROOT

GITHUB = ROOT / ".github"
SCHEMAS = [
    *((path, "vendor.github-workflows") for path in sorted((GITHUB / "workflows").glob("*.yml"))),
    *((path, "custom.github-workflows-require-timeout") for path in sorted((GITHUB / "workflows").glob("*.yml"))),
    (GITHUB / "dependabot.yml", "vendor.dependabot"),
    (GITHUB / "ISSUE_TEMPLATE" / "config.yml", "vendor.github-issue-config"),
    (GITHUB / "ISSUE_TEMPLATE" / "a_number_differs.yml", "vendor.github-issue-forms"),
    (ROOT / "CITATION.cff", "vendor.citation-file-format"),
]


@pytest.mark.parametrize(("path", "schema"), SCHEMAS, ids=lambda value: getattr(value, "name", value))
def test_it_fits_its_schema(path, schema):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, "--force-filetype", "yaml", path]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_folder_that_is_watched_has_requirements():
    settings = yaml.safe_load((GITHUB / "dependabot.yml").read_text(encoding="utf-8"))
    for folder in settings["updates"][0]["directories"]:
        assert (ROOT / folder.strip("/") / "requirements.txt").exists()


def test_workflows_and_the_container_call_what_is_there():
    targets = (ROOT / "Makefile").read_text(encoding="utf-8")
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    commands = [container["postCreateCommand"]]
    for path in (GITHUB / "workflows").glob("*.yml"):
        jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
        commands += [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    for command in commands:
        program, what = command.split()
        assert f"\n{what}: " in targets if program == "make" else (ROOT / what).exists()


def test_the_run_record_is_asked_for():
    form = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / "a_number_differs.yml").read_text(encoding="utf-8"))
    record = next(part for part in form["body"] if part.get("id") == "record")
    assert record["validations"]["required"]
    assert "runs/<rung>/seed<k>.json" in record["attributes"]["description"]


def test_the_citation_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (str(citation["version"]), citation["repository-code"], citation["license"]) == (
        project["version"],
        project["urls"]["Repository"],
        project["license"],
    )


def test_binder_installs_what_readers_need():
    lines = (ROOT / "binder" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert "-r ../requirements.txt" in lines
    assert not [line for line in lines if line.startswith("torch")]
    runtime = (ROOT / "binder" / "runtime.txt").read_text(encoding="utf-8").strip()
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    assert SpecifierSet(oldest).contains(runtime.removeprefix("python-"))
