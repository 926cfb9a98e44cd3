"""The client's example in docs/api.md runs as it stands there."""

from __future__ import annotations

import re

from tests.helpers import REPOSITORY


def test_the_example_runs(url, capsys):
    page = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    section = page.split("\n## Python client\n")[1].split("\n## ")[0]
    [example] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    for there, here in (("http://127.0.0.1:8000", url), ("rounds=6", "rounds=4")):  # the most that this service takes
        assert there in example
        example = example.replace(there, here)
    exec(compile(example, "docs/api.md", "exec"), {})
    printed = re.fullmatch(r"(\d+) failures in 1,000 shots, mean confidence 0\.99\d*\n", capsys.readouterr().out)
    assert int(printed[1]) < 20
