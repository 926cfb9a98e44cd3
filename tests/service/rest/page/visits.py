"""What tests of the page share: a service on a port, and a page that notices what is wrong."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from playwright.sync_api import Page, Response, expect

from simulation.circuits import MemoryExperiment
from tests.helpers import PATIENCE_SECONDS, eventually

EXPERIMENT = MemoryExperiment.create(code="bb72", basis="X", rounds=3, p=0.02)
SEED = 5


# Violations of the policy reach the console as errors too, but these name the directive.
RECORD_VIOLATIONS = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
"""


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The address of an application on a free loopback port, when it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            eventually(lambda: httpx.get(f"{url}readyz", timeout=PATIENCE_SECONDS).is_success)
            yield url
        finally:
            server.should_exit = True
            thread.join()


@dataclass
class Visit:
    """A page, and what was noticed while it was open."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)

    def _keep_decoded(self, response: Response) -> None:
        if "/decode" in response.url:
            self.answers.append(response)

    def open(self, url: str) -> None:
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("response", self._keep_decoded)
        self.page.add_init_script(RECORD_VIOLATIONS)
        self.page.goto(url)

    def choose(self, *, first: int = 0) -> None:
        """Sets EXPERIMENT and one of its shots."""
        self.page.get_by_label("Basis").select_option(EXPERIMENT.basis)
        for label, value in (("Error rate p", "0.02"), ("Seed", str(SEED)), ("Next shot", str(first))):
            self.page.get_by_label(label).fill(value)

    def sample(self, *, first: int = 0) -> None:
        self.choose(first=first)
        self.page.get_by_role("button", name="Sample a shot").click()
        self.shows(f"Shot {first} of seed {SEED}:")

    def shows(self, text: str | re.Pattern[str]) -> None:
        expect(self.page.get_by_role("status")).to_contain_text(text)
