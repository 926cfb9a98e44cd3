"""What the image and the tests of others are made of is named by digest, and in step with what is tested here."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "image"
LOCKED = re.compile(r"^([a-z0-9.-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)


def locked(name: str) -> dict[str, str]:
    """The packages of a file, and their versions; every line belongs to one that has a digest."""
    text = (FOLDER / f"{name}.txt").read_text()
    assert not LOCKED.sub("", text).strip()
    return {package: version for package, version, _ in LOCKED.findall(text)}


@pytest.fixture(scope="module")
def constraints() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())
    return parsed


def test_the_image_has_what_is_tested(constraints):
    assert locked("requirements").items() <= constraints.items()
    assert locked("build").items() <= constraints.items()
    for kind in ("cpu", "cuda"):
        assert locked(f"torch-{kind}")["torch"].partition("+")[0] == constraints["torch"]


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_image_has_all_that_the_package_needs(kind):
    project = (REPOSITORY / "pyproject.toml").read_text()
    needed = re.search(r"^dependencies = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)[1]
    names = {canonicalize_name(Requirement(line.strip(' ",')).name) for line in needed.splitlines()}
    assert len(names) > 10
    assert names <= locked("requirements").keys() | locked(f"torch-{kind}").keys()


def test_the_image_takes_nothing_without_a_digest():
    text = (REPOSITORY / "Dockerfile").read_text()
    [base] = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", text, re.MULTILINE)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${PYTHON_IMAGE}"}
    assert "PIP_REQUIRE_HASHES=1" in text
    installs = re.findall(r"pip install (.*)$", text, re.MULTILINE)
    assert len(installs) == 4
    assert [one for one in installs if "-r" not in one] == ["/wheels/*.whl"]  # our own, built there


def test_the_workflow_tests_every_python_that_is_promised(workflow):
    promised = re.findall(r"Python :: (3\.\d+)", (REPOSITORY / "pyproject.toml").read_text())
    test = workflow["jobs"]["test"]
    assert test["strategy"]["matrix"]["python"] == promised
    assert test["steps"][-1]["run"].endswith(".ci/run")
    assert workflow["permissions"] == {"contents": "read"}


def test_the_workflow_uses_what_it_names_by_digest(workflow):
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", one) for one in used)
    assert any(step.get("with", {}).get("sbom") for step in workflow["jobs"]["image"]["steps"])
