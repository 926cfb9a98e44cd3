"""The page decodes a visitor's own circuit, fills a curve, and takes clicks while it is at work."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Route, expect

from decoder.making import make_decoder
from tests.service.rest.page.visits import EXPERIMENT, SEED

SHOTS = 40


def lines(bits) -> str:
    return "".join("".join(map(str, row)) + "\n" for row in bits.astype(int))


def decode(visit, *, files=(), text=None):
    """Opens the form, fills it and sends it; files are (label, name, content)."""
    if not visit.page.locator("#own-circuit").evaluate("details => details.open"):
        visit.page.get_by_text("Decode your own circuit").click()
    for label, name, content in files:
        file = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
        visit.page.get_by_label(label).set_input_files([file])
    if text is not None:
        visit.page.get_by_label("or its text").fill(text)
    visit.page.get_by_role("button", name="Decode", exact=True).click()


@pytest.mark.parametrize("form", ["b8", "01"])
def test_own_shots_are_decoded_and_counted(visit, samples, form):
    events, truth = samples.unpacked_detection_events()[:SHOTS], samples.unpacked_observable_flips()[:SHOTS]
    shots = samples.detection_events[:SHOTS].tobytes() if form == "b8" else lines(events).encode()
    files = [
        ("Circuit", "mine.stim", str(EXPERIMENT.circuit).encode()),
        ("Shots, stim", f"mine.{form}", shots),
        ("True observables", "flips.01", lines(truth).encode()),
    ]
    decode(visit, files=files)
    rows = visit.page.locator("#own-table tbody tr")
    expect(rows).to_have_count(2)
    for row, decoder in zip(rows.all(), ("neural", "bposd"), strict=True):
        predictions = make_decoder(decoder, EXPERIMENT).decode_batch(events)
        failed = int((predictions != truth).any(axis=1).sum())
        expect(row.locator("td").first).to_contain_text(re.compile(f"^{failed} failures? in {SHOTS} shots"))
        with visit.page.expect_download() as download:
            row.get_by_role("link", name="predictions.01").click()
        assert download.value.path().read_text() == lines(predictions)
    said = visit.page.locator("#own-said")
    expect(said).to_contain_text("bb72, X memory, 3 rounds")
    expect(said).to_contain_text(re.compile("Decoders that take it: .*serial"))


def test_a_model_alone_is_looked_at_and_a_network_says_why_it_cannot(visit):
    model = "error(0.1) D0 L0\nerror(0.1) D0 D1\nerror(0.1) D1\n"
    decode(visit, text=model)
    expect(visit.page.locator("#own-said")).to_contain_text("2 detectors, 1 observables.")
    expect(visit.page.locator("#own-table")).to_be_hidden()
    decode(visit, files=[("Shots, stim", "shots.01", b"10\n00\n")])
    rows = visit.page.locator("#own-table tbody tr")
    expect(rows).to_have_count(2)
    network, bposd = rows.all()
    expect(network).to_contain_text("Invalid parameters:")
    expect(bposd).to_contain_text("2 shots")
    visit.complaints.clear()  # what the browser itself says of the network's 422


@pytest.mark.parametrize(
    ("files", "text", "message"),
    [
        ([], "", "Choose a file with a circuit or an error model, or paste its text."),
        (
            [("Shots, stim", "s.b8", b"\xff\x02\x03")],
            "error(0.1) D0 D8 L0",
            "3 bytes are no whole number of shots of 9",
        ),
        ([("Shots, stim", "s.01", b"00\n1\n")], "error(0.1) D0 D1 L0", "s.01, line 2: 1 bits where there are 2."),
    ],
)
def test_what_cannot_be_read_is_said(visit, files, text, message):
    decode(visit, files=files, text=text)
    expect(visit.page.get_by_role("alert")).to_contain_text(message)


def test_a_curve_fills(visit):
    visit.page.get_by_label("Rounds").fill("2")
    visit.page.get_by_label("Error rate p").fill("0.003")
    visit.page.get_by_role("button", name="Curve").click()
    rows = visit.page.locator("#curve-table tbody tr")
    expect(rows).to_have_count(5)
    visit.page.get_by_role("button", name="Stop").click()
    shown = [row.locator("th, td").all_inner_texts() for row in rows.all()]
    assert [row[0] for row in shown] == ["0.0015", "0.0021", "0.003", "0.0042", "0.006"]
    for row in shown:
        assert all(re.fullmatch(r"\d+ failures? in [12]00 shots [(].*[)]", count) for count in row[1:])
    assert len({count for row in shown for count in row[1:]}) > 1
    marks = visit.page.locator("#curve-plot .mark")
    assert marks.count() == sum(not count.startswith("0 ") for row in shown for count in row[1:])


def test_a_click_while_a_shot_is_under_way_counts(visit):
    visit.sample(first=1)
    held: list[Route] = []
    visit.page.route("**/decode*", lambda route: held.append(route), times=1)
    button = visit.page.get_by_role("button", name="Sample a shot")
    with visit.page.expect_request("**/decode*"):
        button.click()
    button.click()
    button.click()  # the last one counts: one more shot
    held[0].continue_()
    visit.shows(f"Shot 3 of seed {SEED}:")
    expect(visit.page.locator(".failures").first).to_contain_text("in 3 shots (")


def test_the_times_of_a_shot_stand_side_by_side(visit):
    visit.sample()
    compute, trip = visit.page.locator("#observables tfoot tr").all()
    for row, head in ((compute, "Compute"), (trip, "Round trip")):
        cells = row.locator("th, td").all_inner_texts()
        assert (cells[0], len(cells)) == (head, 5)
        assert all(re.fullmatch(r"[\d.]+ (µs|ms|s)", cell) for cell in cells[3:])
    told = visit.page.get_by_role("status").inner_text()
    confidence = re.search(r"Network: \w+.*? with confidence (.+?)[.] ", told)[1]
    assert f"its answer {confidence}, any other" in visit.page.locator("#posterior").inner_text()
