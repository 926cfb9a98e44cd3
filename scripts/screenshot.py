"""Runs the service's page in headless Chromium and takes the picture of it that the README shows.

    python scripts/screenshot.py --out docs/page.png

Needs the packages of `pip install .[dev]` and Debian's `chromium`. The shots are drawn by a seed, so only the
latencies differ from one picture to the next.
"""

import argparse
import re
import shutil
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from scripts.demo import service

CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 600_000
"""Until so many shots are decoded, on a busy machine."""


def main() -> None:
    arguments = _arguments()
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("there is no chromium on this machine; install Debian's package of that name")
    with service() as client, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        page = browser.new_page(viewport={"width": 1120, "height": 600}, color_scheme=arguments.scheme)
        page.goto(str(client.url))
        _take_shots(page, arguments)
        page.screenshot(path=arguments.out, full_page=True, animations="disabled")
        browser.close()
    print(f"wrote {arguments.out}")


def _take_shots(page: Page, arguments: argparse.Namespace) -> None:
    # The page takes a shot by itself when it opens, and what is asked for meanwhile is not done.
    expect(page.get_by_role("status")).to_contain_text(re.compile(r"Shot \d+ of seed"), timeout=PATIENCE_MS)
    page.get_by_label("Model").select_option(arguments.model)
    page.get_by_label("Rounds").fill(str(arguments.rounds))
    page.get_by_label("Error rate p").fill(str(arguments.p))
    page.get_by_label("Seed").fill(str(arguments.seed))
    sample = page.get_by_role("button", name="Sample a shot")
    for number in range(arguments.shots):
        sample.click()
        announced = re.compile(rf"Shot {number} of seed {arguments.seed}:")
        expect(page.get_by_role("status")).to_contain_text(announced, timeout=PATIENCE_MS)
    page.get_by_role("heading", name="Tandem").click()  # the button is not to look pressed


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/page.png"))
    parser.add_argument("--model", default="bb72")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--p", type=float, default=0.004)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--shots", type=int, default=100)
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    return parser.parse_args()


if __name__ == "__main__":
    main()
