"""What a visitor of the page sees and does, in Debian's Chromium."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect
from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from decoder.making import make_decoder
from service.app import create_app
from service.settings import ModelSettings, Settings
from tests.service.rest.page.visits import EXPERIMENT, SEED, Visit, served

FOCUSED = """() => {
  const at = document.activeElement;
  const name = (at.labels?.[0] ?? at).textContent.trim().split("\\n")[0].trim();
  return [name, getComputedStyle(at).outlineWidth];
}"""
CONTRASTS = """() => {
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
  };
  const texts = [...document.querySelectorAll("body *")].filter((node) => node.checkVisibility() && !node.closest("svg")
    && [...node.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.data.trim()));
  const marks = [...document.querySelectorAll("path.event")];
  const of = (node, colour) => {
    const [a, b] = [luminance(colour), luminance(background(node))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  return {
    paper: luminance(background(document.body)),
    texts: texts.map((node) => [of(node, getComputedStyle(node).color), node.outerHTML.slice(0, 80)]),
    marks: marks.map((node) => {
      const style = getComputedStyle(node);
      return [of(node, style.fill === "none" ? style.stroke : style.fill), node.outerHTML.slice(0, 80)];
    }),
  };
}"""


KEY = "a key of this test"


class KeyNeeded:
    """Answers 401 to requests for the API that lack the key, as a service or a proxy with keys does."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        needed = scope["type"] == "http" and scope["path"].startswith(("/v1/", "/openapi.json"))
        if needed and Headers(scope=scope).get("authorization") != f"Bearer {KEY}":
            problem = {"type": "about:blank", "title": "Unauthorized", "status": 401, "detail": "send an API key"}
            refusal = JSONResponse(problem, 401, {"WWW-Authenticate": "Bearer"}, "application/problem+json")
            await refusal(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def table(page: Page) -> list[list[str]]:
    rows = page.locator("#observables tbody tr").all()
    return [row.locator("th, td").all_inner_texts() for row in rows]


def test_the_events_drawn_are_those_of_the_circuit(visit, samples):
    visit.sample(first=3)
    drawn = visit.page.locator("path.event").evaluate_all("marks => marks.map((mark) => mark.dataset.event)")
    expected = EXPERIMENT.grid.coordinates[samples.unpacked_detection_events()[3]]
    assert sorted(tuple(map(int, event.split(","))) for event in drawn) == sorted(map(tuple, expected.tolist()))
    assert set(expected[:, 3]) == {0, 1}
    layers = visit.page.locator("#rounds li").all()
    assert [layer.inner_text().split("\n")[0] for layer in layers] == ["round 0", "round 1", "round 2", "readout"]
    for t, layer in enumerate(layers):
        assert layer.locator("path.event").count() == (expected[:, 2] == t).sum()
    shapes = {kind: visit.page.locator(f"path.event.{kind}").first.get_attribute("d") for kind in "xz"}
    outlines = {kind: re.sub(r"[-\d. ]+", "", path) for kind, path in shapes.items()}
    assert outlines["x"] != outlines["z"]
    visit.shows(f"{len(expected)} detection events")


def test_the_table_says_what_the_decoders_say(visit, samples, wrong_shot):
    visit.sample(first=wrong_shot)
    shot = samples.unpacked_detection_events()[wrong_shot : wrong_shot + 1]
    truth = samples.unpacked_observable_flips()[wrong_shot]
    neural: Any = make_decoder("neural", EXPERIMENT)
    soft = neural.decode_soft(shot)
    bposd = make_decoder("bposd", EXPERIMENT).decode_batch(shot)[0]
    assert (bposd != truth).any()

    rows = table(visit.page)
    assert [int(row[1]) for row in rows] == truth.astype(int).tolist()
    for column, prediction in ((3, soft.predictions[0]), (4, bposd)):
        assert [int(row[column][0]) for row in rows] == prediction.astype(int).tolist()
        assert ["✗" in row[column] for row in rows] == (prediction != truth).tolist()
    shown = [float(row[2].removeprefix("> ").replace("\u2212", "-")) for row in rows]
    assert np.allclose(shown, soft.flip_probabilities[0], atol=2e-4)
    visit.shows(f"BP-OSD: wrong on observable {', '.join(map(str, np.flatnonzero(bposd != truth)))}.")
    failures = visit.page.locator(".failures").all_inner_texts()
    network_failed = int((soft.predictions[0] != truth).any())
    assert failures[0].startswith("1 failure in" if network_failed else "0 failures in 1 shot (0 to 79 %)")
    assert failures[1] == "1 failure in 1 shot (21 to 100 %)"


def test_the_latencies_are_those_of_the_requests(visit):
    visit.sample()
    # The first request of each decoder prepares it and is not counted.
    counted = visit.answers[2:]
    assert [answer.url.partition("/decode")[0].rpartition("/")[2] for answer in counted] == ["bb72", "bb72-bposd"]
    for decoder, answer in zip(visit.page.locator(".decoder").all(), counted, strict=True):
        compute = float(re.search(r"compute;dur=([\d.]+)", answer.headers["server-timing"])[1])
        rows = [row.locator("td").all_inner_texts() for row in decoder.locator("tbody tr").all()]
        units = {"µs": 1e-3, "ms": 1, "s": 1e3}
        (computed,), (trip,) = ({float(cell.split()[0]) * units[cell.split()[1]] for cell in row} for row in rows)
        assert computed == pytest.approx(compute, rel=5e-3)
        assert trip >= computed
        assert "latencies of 1 shots" in decoder.get_by_role("img").get_attribute("aria-label")


def test_a_fresh_seed_is_told_and_the_next_shot_follows(visit):
    assert visit.page.get_by_label("Error rate p").input_value() == "0.004"
    seed = visit.page.get_by_label("Seed").input_value()
    assert seed.isdecimal()
    visit.page.get_by_role("button", name="Sample a shot").click()
    visit.shows(f"Shot 1 of seed {seed}:")
    expect(visit.page.locator(".failures").first).to_contain_text("in 2 shots (")


def test_the_keyboard_is_enough(visit):
    page = visit.page
    seen = []
    for _ in range(12):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(FOCUSED)
        seen.append(name)
        assert outline == "2px"
        if name == "Seed":
            page.keyboard.type("17")
            page.keyboard.press("Enter")
            visit.shows("Shot 0 of seed 17:")
        if name == "Run":
            break
    labels = ["Model", "Basis", "Rounds", "Error rate p", "Seed", "Next shot", "Sample a shot", "Run"]
    assert [re.sub(r"(Model|Basis).*", r"\1", name) for name in seen] == ["API", "Metrics", *labels]
    page.keyboard.press("Space")
    expect(page.locator(".failures").first).to_contain_text(re.compile(r"in ([4-9]|\d\d+) shots"))
    assert page.get_by_role("status").get_attribute("aria-live") == "off"
    page.keyboard.press("Space")
    visit.shows("Stopped. Shot ")
    assert page.get_by_role("status").get_attribute("aria-live") == "polite"
    assert page.evaluate("document.activeElement.textContent") == "Run"
    shots = page.locator(".failures").first.inner_text()
    page.wait_for_timeout(1500)
    at_most_one_more = int(re.search(r"in (\d+)", page.locator(".failures").first.inner_text())[1])
    assert at_most_one_more <= int(re.search(r"in (\d+)", shots)[1]) + 1


def test_the_address_names_the_shot(visit, browser, samples):
    visit.sample(first=2)
    visit.page.get_by_role("button", name="Sample a shot").click()
    visit.shows(f"Shot 3 of seed {SEED}:")
    told = visit.page.get_by_role("status").inner_text()
    other = Visit(browser.new_page())
    other.open(visit.page.url)
    expect(other.page.get_by_role("status")).to_have_text(told)
    assert other.page.locator("path.event").count() == samples.unpacked_detection_events()[3].sum()
    other.page.evaluate("location.hash = location.hash.replace('shot=3', 'shot=2')")
    other.shows(f"Shot 2 of seed {SEED}:")
    other.page.close()


def test_the_next_failure(visit, wrong_shot):
    visit.choose(first=max(0, wrong_shot - 1))
    visit.page.get_by_role("button", name="Next failure").click()
    visit.shows(re.compile(f"Stopped. Shot ({wrong_shot - 1}|{wrong_shot}) of seed {SEED}: .*wrong on observable"))
    assert visit.page.locator("td.wrong").count() > 0


@pytest.mark.parametrize("label", ["Rounds", "Error rate p", "Next shot"])
def test_an_empty_field_is_an_error(visit, label):
    visit.page.get_by_label(label).fill("")
    visit.page.get_by_role("button", name="Sample a shot").click()
    expect(visit.page.get_by_role("alert")).to_have_text(f"{label}: enter a number.")
    assert visit.page.evaluate(FOCUSED)[0] == label


def test_the_api_is_documented_without_any_other_host(visit, url):
    visit.page.get_by_role("link", name="API").click()
    expect(visit.page.locator("details.route")).not_to_have_count(0)
    document = httpx.get(f"{url}openapi.json").json()
    routes = [f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods]
    assert visit.page.locator("details.route > summary > code").all_inner_texts() == routes
    decode = visit.page.locator("details.route", has_text="POST /v1/models/{model_id}/decode").first
    expect(decode.locator("summary > p")).to_have_text("Decodes shots, sent as JSON or as stim's b8.")
    decode.locator("summary").click()
    expect(decode.get_by_role("row", name=re.compile("^rounds .*Syndrome rounds"))).to_be_visible()


def test_other_settings_count_anew(visit):
    visit.sample()
    visit.page.get_by_role("button", name="Sample a shot").click()
    visit.shows("Shot 1 of")
    visit.page.get_by_label("Rounds").fill("4")
    assert visit.page.get_by_label("Next shot").input_value() == "0"
    visit.page.get_by_role("button", name="Sample a shot").click()
    visit.shows("Shot 0 of")
    expect(visit.page.locator("#rounds li")).to_have_count(5)
    assert "in 1 shot (" in visit.page.locator(".failures").first.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_can_be_read(visit, wrong_shot, scheme):
    visit.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    visit.sample(first=wrong_shot)
    found = visit.page.evaluate(CONTRASTS)
    assert (found["paper"] < 0.05) == (scheme == "dark")
    assert len(found["texts"]) > 60
    assert [text for ratio, text in found["texts"] if ratio < 4.5] == []  # WCAG 2.2, 1.4.3
    assert [mark for ratio, mark in found["marks"] if ratio < 3] == []  # 1.4.11
    assert visit.page.locator("path.event").first.evaluate("mark => getComputedStyle(mark).animationName") == "none"


def test_a_narrow_screen_does_not_scroll_sideways(visit):
    visit.page.set_viewport_size({"width": 360, "height": 740})
    visit.sample()
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 360
    assert visit.page.evaluate("document.querySelector('#observables').getBoundingClientRect().right") <= 360
    for button in visit.page.locator(".buttons button").all():
        assert button.evaluate("button => button.scrollHeight <= button.clientHeight"), button.inner_text()


def test_what_the_service_refuses_is_said_in_its_words(visit):
    visit.page.get_by_label("Rounds").fill("5")
    visit.page.get_by_role("button", name="Run").click()
    alert = visit.page.get_by_role("alert")
    expect(alert).to_have_text("Invalid parameters: rounds=5 is more than the 4 that this service decodes")
    expect(visit.page.get_by_role("button", name="Run")).to_be_visible()
    (complaint,) = visit.complaints
    assert "status of 422" in complaint  # what the browser itself says of any such answer
    visit.complaints.clear()
    visit.page.get_by_label("Rounds").fill("2")
    visit.page.get_by_role("button", name="Sample a shot").click()
    visit.shows("Shot 0 of")
    expect(alert).to_be_hidden()


def test_a_key_is_asked_for_and_kept_for_the_tab(browser):
    model = ModelSettings(id="bb72-bposd", code="bb72", decoder="bposd", rounds=1)
    with served(KeyNeeded(create_app(Settings(models=(model,))))) as url:
        context = browser.new_context()
        visit = Visit(context.new_page())
        visit.open(url)
        field = visit.page.get_by_label("API key")
        for key in ("a wrong one", KEY):
            expect(visit.page.get_by_role("alert")).to_have_text("Unauthorized: send an API key")
            field.fill(key)
            field.press("Enter")
        expect(visit.page.get_by_label("Model")).to_have_value("bb72-bposd")
        expect(field).to_be_hidden()
        visit.shows("Shot 0 of seed")
        visit.page.get_by_role("button", name="Sample a shot").click()
        visit.shows(re.compile("detection events?[.] BP-OSD: (right|wrong)"))
        assert visit.page.locator("#observables thead th").all_inner_texts() == ["Observable", "Truth", "BP-OSD"]
        assert json.loads(visit.page.evaluate("JSON.stringify(sessionStorage)")) == {"tandem-api-key": KEY}
        assert visit.page.evaluate("localStorage.length") == 0
        visit.page.reload()
        expect(visit.page.get_by_label("Model")).to_have_value("bb72-bposd")
        visit.page.get_by_role("link", name="API").click()  # opened by the same key
        expect(visit.page.locator("details.route")).not_to_have_count(0)
        context.close()
