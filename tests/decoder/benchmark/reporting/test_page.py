import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import matplotlib.image
import pytest

from decoder.benchmark.reporting.page import write_page

VOID = {"meta", "img", "br", "hr", "link", "input"}
LOADING = {"script", "link", "iframe", "object", "embed", "audio", "video", "source", "base", "form", "svg"}
ATTACK = "<script>alert(1)<!-- \"' & [x](javascript:1) `|*_"


class Page(HTMLParser):
    """The elements of a page, which have to be well nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        if "style" not in self.open:
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def written_rows(top: Path) -> list[list[str]]:
    """The rows of every results.md, in any order."""
    lines = [line for path in top.rglob("results.md") for line in path.read_text().splitlines()]
    return [line[2:-2].split(" | ") for line in lines if line.startswith("| ") and "---" not in line]


@pytest.fixture
def page(tree):
    path, _ = write_page(tree, title="Title")
    return Page(path.read_text())


def test_html_holds_every_row(page, tree):
    rows = written_rows(tree)
    assert len(rows) == 6
    for row in rows:
        assert row in page.rows


def test_html_holds_every_plot(page, tree):
    files = sorted(path.read_bytes() for path in tree.rglob("*.png"))
    images = page.all("img")
    start = "data:image/png;base64,"
    assert all(image["src"].startswith(start) for image in images)
    held = [base64.b64decode(image["src"].removeprefix(start), validate=True) for image in images]
    assert sorted(held) == files
    for image, png in zip(images, held, strict=True):
        height, width = matplotlib.image.imread(io.BytesIO(png)).shape[:2]
        assert (image["width"], image["height"]) == (str(width), str(height))
    titles = ("Accuracy: bb72, Z memory, 1 round, p = 1, 2 %.", "Latency: bb72, Z memory, 1 round, p = 1 %.")
    assert all(image["alt"].endswith(titles) and len(image["alt"]) > 80 for image in images)


def test_titles_name_all_that_was_measured(tree, edit):
    codes, rounds = ("bb72", "bb90", "bb144"), (6, 12)
    points = [{"code": code, "rounds": number} for code in codes for number in rounds]
    edit(lambda content: content.update(points=[content["points"][0] | point for point in points]), "accuracy")
    path, _ = write_page(tree, title="Title")
    assert "Accuracy: bb72, bb90 and bb144, Z memory, 6 and 12 rounds, p = 1 %" in Page(path.read_text()).text


def test_html_loads_nothing(page, tree):
    assert not LOADING & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "style", "background"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png"))
        assert not any(name.startswith("on") for name in attributes)
    style = re.search(r"<style>(.*)</style>", (tree / "report.html").read_text(), re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style
    [policy] = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none';")


def test_html_leads_to_its_parts(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [link["href"] for link in page.all("a")]
    assert {"#summary", "#words", "#accuracy", "#latency", "#result-1", "#result-2"} == set(links)
    assert {link[1:] for link in links} <= set(ids)
    named = [attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes]
    assert set(named) <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table"))


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_pages_say_where_results_come_from(tree, edit, name):
    git = {"commit": "c0ffee" * 6, "clean": False}
    edit(lambda content: content["provenance"].update(git=git, more={"cluster": "ray"}), "accuracy")
    edit(lambda content: content["provenance"].update(git=git | {"clean": True}), "deep/latency")
    weights = {"decoder": "neural", "weights_sha256": "5eed" * 16, "provenance": {"steps": 3}}
    edit(lambda content: content["provenance"].update(weights=[weights]), "accuracy")
    write_page(tree, title="Title")
    text = (tree / name).read_text()
    text = Page(text).text if name.endswith("html") else text.replace("\\", "")
    for path in tree.rglob("results.json"):
        provenance = json.loads(path.read_text())["provenance"]
        assert all(circuit["sha256"] in text for circuit in provenance["circuits"])
        assert provenance["command"] in text
        assert provenance["time"] in text
        assert provenance["machine"]["cpu"] in text
        for package, version in provenance["versions"].items():
            assert f"{package} {version or 'not installed'}" in text
    assert "c0ffee" * 6 in text
    assert "1 of 2 results were made from a tree with uncommitted changes" in text
    assert "weights_sha256 " + "5eed" * 16 in text
    assert "steps" not in text
    assert '{"cluster": "ray"}' in text
    for word in ("XZ, XYZ", "block LER", "per round", "LER(t)", "complementary CDF", "upper bound"):
        assert word in text
    assert "ECE" not in text


def test_markdown_holds_the_same(tree):
    _, path = write_page(tree, title="Title")
    text = path.read_text()
    assert text.startswith("# Title\n")
    for row in written_rows(tree):
        assert f"| {' | '.join(row)} |\n" in text
    images = [unquote(url) for url in re.findall(r"!\[[^\]]+\]\((\S+)\)", text)]
    assert sorted(images) == sorted(str(file.relative_to(tree)) for file in tree.rglob("*.png"))
    anchors = re.findall(r'<a id="([^"]+)">', text)
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) == set(anchors)
    assert len(anchors) == len(set(anchors)) == 6
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if re.fullmatch(r"\|( --- \|)+", line)]
    assert len(starts) == text.count("sha256 is that of") + 2 + 2
    assert all(lines[start - 1].count("|") == lines[start].count("|") and lines[start - 2] == "" for start in starts)


def test_pages_show_markup_as_text(tree, edit):
    folder = "a & b\"'><script>alert(1) [c](d)"
    (tree / "accuracy").rename(tree / folder)
    edit(lambda content: content["provenance"].update(command=f"x\n{ATTACK}"), folder)
    edit(lambda content: content["provenance"]["machine"].update(cpu=ATTACK), folder)
    edit(lambda content: [point.update(decoder=ATTACK) for point in content["points"]], folder)
    table = tree / folder / "results.md"
    table.write_text(table.read_text().replace("bposd-osd0", ATTACK.replace("|", "\\|")))
    html, markdown = write_page(tree, title=ATTACK)

    page = Page(html.read_text())
    assert not LOADING & {tag for tag, _ in page.elements}
    assert ATTACK in page.text
    assert folder in page.text
    assert sum(ATTACK in row for row in page.rows) == 3

    text = markdown.read_text()
    code = [line for line in text.splitlines() if line.startswith("    ")]
    assert f"    {ATTACK}" in code
    rest = text.replace(f"    {ATTACK}", "")
    assert "<script" not in rest
    assert "<!--" not in rest
    assert r"\[x\](javascript:1) \`\|\*\_" in rest
    images = [unquote(url) for url in re.findall(r"!\[[^\n]+?\]\((\S+)\)\n", text)]
    assert f"{folder}/ler.png" in images
    assert all((tree / image).is_file() for image in images)


def test_names_that_are_no_text_are_shown(tree):
    (tree / "accuracy").rename(tree / "r\udcff")
    html, markdown = write_page(tree, title="Title")
    assert "r\ufffd" in Page(html.read_text()).text
    assert "(r%FF/ler.png)" in markdown.read_text()


def test_the_same_results_give_the_same_bytes(tree, tmp_path):
    copy = Path(shutil.copytree(tree, tmp_path / "elsewhere" / "tree"))
    for one, other in zip(write_page(tree, title="T"), write_page(copy, title="T"), strict=True):
        assert one.read_bytes() == other.read_bytes()
    before = (tree / "report.html").read_bytes()
    write_page(tree, title="T", force=True)
    assert (tree / "report.html").read_bytes() == before


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_an_earlier_report_is_not_replaced_by_accident(tree, name):
    (tree / name).write_text("precious")
    with pytest.raises(FileExistsError, match=f"{name} exists"):
        write_page(tree, title="Title")
    assert [path.read_text() for path in tree.glob("report.*")] == ["precious"]
    write_page(tree, title="Title", force=True)
    assert "Title" in (tree / name).read_text()
    assert not list(tree.glob(".*"))


def test_nothing_is_written_for_bad_input(tree):
    with pytest.raises(ValueError, match="the title is empty"):
        write_page(tree, title=" ")
    (tree / "deep" / "latency" / "results.json").write_text("{")
    with pytest.raises(ValueError, match="is no valid JSON"):
        write_page(tree, title="Title")
    assert sorted(path.name for path in tree.iterdir()) == ["accuracy", "deep"]
