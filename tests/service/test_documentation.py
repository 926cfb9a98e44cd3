"""docs/api.md says what the code does."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.helpers import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "api.md"


def settings_table() -> str:
    lines = ["| setting | default | what it is |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        computed = field.default_factory is not None or field.default is None
        default = "" if computed else f"`{str(field.default).lower()}`"
        lines.append(f"| `{name}` | {default} | {field.description} |")
    return "\n".join(lines)


def test_every_setting_is_in_the_table():
    assert settings_table() in DOCUMENT.read_text(), f"put this table into docs/api.md:\n{settings_table()}"


def test_every_bound_is_as_its_setting_and_its_test_say():
    text = (REPOSITORY / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| (.+) \| (.+) \| (?:`(\w+)`)? ?\| `([\w/]+\.py)::(\w+)` \|$", text, re.MULTILINE)
    assert len(rows) == text.count("::test_") > 20
    for what, bound, setting, file, test in rows:
        assert f"def {test}(" in (REPOSITORY / "tests" / "service" / file).read_text(), what
        if setting and (default := Settings.model_fields[setting].default) is not None:
            assert float(bound.split()[0]) == default, what


def test_every_metric_is_in_the_table():
    text = Metrics().exposition("")[0].decode()
    ours = {family.name for family in text_string_to_metric_families(text) if family.name.startswith("tandem_")}
    assert len(ours) >= 8
    document = DOCUMENT.read_text()
    assert [name for name in sorted(ours) if f"`{name}" not in document] == []
