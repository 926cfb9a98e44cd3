"""`tandem benchmark report`."""

import pytest

ACCURACY = "benchmark accuracy --code bb72 --rounds 1 --basis Z --p 0.02 --decoders bposd-osd0 --shots 20 --seed 3"


def test_a_report_is_written_beside_its_results(folder, succeed, refuse):
    succeed(f"{ACCURACY} --out r/one --json")
    assert succeed("benchmark report r").splitlines() == ["r/report.html", "r/report.md"]
    assert (folder / "r" / "report.md").read_text().startswith("# Tandem: benchmark results\n")
    assert "Accuracy: bb72, Z memory, 1 round, p = 2 %" in (folder / "r" / "report.html").read_text()
    assert "report.html exists; choose another name or pass --force" in refuse("benchmark report r --title Other")
    succeed("benchmark report r --title Other --force")
    assert (folder / "r" / "report.md").read_text().startswith("# Other\n")
    succeed("benchmark report r/one")
    assert "![Plot. " in (folder / "r" / "one" / "report.md").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no results.json in r or below"),
        ("{", "results.json is no valid JSON"),
        ("{}", "it lacks points, provenance"),
    ],
)
def test_what_cannot_be_reported_is_refused(folder, refuse, content, message):
    (folder / "r").mkdir()
    if content is not None:
        (folder / "r" / "results.json").write_text(content)
    assert message in refuse("benchmark report r")
    assert "there is no directory absent" in refuse("benchmark report absent")
    assert not list(folder.rglob("report.*"))
