"""The page of a service with the network and BP-OSD, and Debian's Chromium to open it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from decoder.making import make_decoder
from service.app import create_app
from service.settings import ModelSettings, Settings, default_models
from simulation.shots.sampling import Samples, sample
from tests.service.rest.page.visits import EXPERIMENT, SEED, Visit, served

CHROMIUM = shutil.which("chromium")
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT_MS = 60_000


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    network = next(model for model in default_models() if model.id == "bb72").model_copy(update={"rounds": 3})
    bposd = ModelSettings(id="bb72-bposd", code="bb72", decoder="bposd", rounds=3)
    with served(create_app(Settings(models=(network, bposd), max_rounds=4))) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine; Debian's package of that name has it")
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(url: str, browser: Browser) -> Iterator[Visit]:
    """The page of the service, which must not complain, nor ask any other host."""
    context = browser.new_context(viewport={"width": 1180, "height": 900})
    visit = Visit(context.new_page())
    visit.open(url)
    expect(visit.page.get_by_label("Model")).to_have_value("bb72")
    visit.shows("Shot 0 of seed")  # which comes by itself
    visit.answers.clear()
    yield visit
    assert visit.page.evaluate("violations") == []
    assert visit.complaints == []
    assert {httpx.URL(request).netloc for request in visit.requests} == {httpx.URL(url).netloc}
    context.close()


@pytest.fixture(scope="module")
def samples() -> Samples:
    return sample(EXPERIMENT.circuit, shots=300, seed=SEED)


@pytest.fixture(scope="module")
def wrong_shot(samples: Samples) -> int:
    """The first shot that BP-OSD gets wrong."""
    decoder = make_decoder("bposd", EXPERIMENT)
    shots = samples.unpacked_detection_events()
    truth = samples.unpacked_observable_flips()
    return next(i for i in range(len(shots)) if (decoder.decode_batch(shots[i : i + 1])[0] != truth[i]).any())
