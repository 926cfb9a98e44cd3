"""What the documentation shows runs as it stands there, one block after the other, in one directory a page.

Blocks marked `bash` and `python` are run, and those marked `text` are not: they take long, or a service or a cluster.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from typer.testing import CliRunner

from service.cli import app
from tests.helpers import REPOSITORY

GUIDE = sorted(f"docs/guide/{path.name}" for path in (REPOSITORY / "docs" / "guide").glob("*.md"))
DOCS = sorted(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md"))
PAGES = ("README.md", "docs/index.md", *GUIDE)
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")


def blocks(page: str) -> list[tuple[str, str]]:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    return re.findall(r"^```(bash|python)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run_command(line: str, folder: Path) -> None:
    words = shlex.split(line)
    if words[0] == "tandem" and not {"|", ">"} & set(words):  # in this process, as it takes seconds to start others
        result = CliRunner().invoke(app, words[1:])
        assert result.exit_code == 0, f"{line}\n{result.stderr or result.exception}"
        return
    tools = Path(sys.executable).parent
    started = f'PATH="{tools}:$PATH"; tandem() {{ python -c "from service.cli import main; main()" "$@"; }}'
    command = ["bash", "-euo", "pipefail", "-c", f"{started}\n{line}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stderr}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_a_pages_snippets_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for language, code in blocks(page):
        if language == "python":
            exec(compile(code, page, "exec"), {"__name__": "__main__"})
            continue
        for line in code.replace("\\\n", " ").splitlines():
            run_command(line, tmp_path)


@pytest.mark.parametrize("name", sorted(path.name for path in (REPOSITORY / "docs" / "notebooks").glob("*.ipynb")))
def test_a_notebook_runs(name, monkeypatch):
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: plt.close("all"))
    monkeypatch.setenv("TANDEM_NOTEBOOK_MINUTES", "0.02")
    book = json.loads((REPOSITORY / "docs" / "notebooks" / name).read_text(encoding="utf-8"))
    known: dict[str, object] = {}
    for cell in book["cells"]:
        assert not cell.get("outputs"), "commit notebooks without their outputs"
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{name} {cell['id']}", "exec"), known)


@pytest.mark.parametrize("page", sorted({"CONTRIBUTING.md", *PAGES, *DOCS}))
def test_links_lead_somewhere(page):
    path = REPOSITORY / page
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target, anchor in LINK.findall(text):
        if target.startswith(("http:", "https:")):
            continue
        there = (path.parent / target) if target else path
        assert there.exists(), f"{page} links to {target}"
        if page.startswith("docs/"):  # which is all that the site holds
            assert there.resolve().is_relative_to(REPOSITORY / "docs"), f"{page} links to {target}, out of docs/"
        if anchor:
            titles = re.findall(r"^#+ +(.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, f"{page} links to {target}#{anchor}"
