"""docs/api.md says what the code does."""

from __future__ import annotations

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


def test_every_metric_is_in_the_table():
    text = Metrics().exposition("")[0].decode()
    ours = {family.name for family in text_string_to_metric_families(text) if family.name.startswith("tandem_")}
    assert len(ours) >= 8
    document = DOCUMENT.read_text()
    assert [name for name in sorted(ours) if f"`{name}" not in document] == []
