"""`tandem serve` under load: workers killed, replaced and ended, and no request the worse for it."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.client import Client, ServiceError
from service.folders import own_folder
from tests.helpers import PATIENCE_SECONDS, command_of, eventually
from tests.service import served
from tests.service.served import Server

MODEL = {"id": "m", "code": "bb72", "decoder": "bposd-osd0", "rounds": 1, "own_process": False}
URL = "/v1/models/m/decode"
B8 = {"content-type": "application/octet-stream"}
SHOT = bytes(9)
ADMIN = "root-0123456789abcdef"


def started(server: Server) -> int:
    """How many workers have got ready so far."""
    return len(re.findall(r"worker \d+ is ready", server.log.read_text()))


class Load:
    """Clients that ask again and again until the port is closed, on connections kept or new each time.

    They pause, so that workers that start have the processor too.
    """

    def __init__(self, url: str, clients: int = 6) -> None:
        self.answers: list[tuple[float, int | str]] = []
        self._url = url + URL
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(index % 2 == 0,)) for index in range(clients)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def failures(self, *, after: float = 0.0) -> list[tuple[float, int | str]]:
        return [answer for answer in self.answers if answer[1] != 200 and answer[0] >= after]

    def _ask(self, keep: bool) -> None:
        client = httpx.Client(timeout=PATIENCE_SECONDS)
        while not self._stop.wait(0.03):
            sent = time.monotonic()
            try:
                answer = client.post(self._url, content=SHOT, headers=B8 if keep else B8 | {"connection": "close"})
                self.answers.append((sent, answer.status_code))
            except httpx.ConnectError:
                return  # nobody listens any more: the request was never sent
            except httpx.HTTPError as error:
                self.answers.append((sent, repr(error)))
        client.close()


@pytest.fixture
def serve(tmp_path, temporary_folder) -> Callable[..., AbstractContextManager[Server]]:
    """Workers are asked over a socket, for which the path of this temporary folder is too long."""
    return partial(served.serve, tmp_path / "log", model=MODEL, TMPDIR=str(temporary_folder))


@pytest.fixture
def temporary_folder(tmp_path) -> Path:
    (folder := tmp_path / ("long" * 20)).mkdir()
    return folder


def test_the_client_does_not_notice_that_workers_are_killed(serve):
    with serve("--workers", "2") as server:
        server.wait_until_ready()
        failures, rounds = [], []
        stop = threading.Event()

        def ask() -> None:
            shots = np.zeros((1, 72), dtype=np.bool_)
            with Client(server.url) as client:
                while not stop.wait(0.01):
                    try:
                        rounds.append(client.decode("m", shots).predictions.shape)
                    except ServiceError as error:
                        failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for kills in (1, 2):
            asked = len(rounds)
            eventually(lambda asked=asked: len(rounds) > asked + 40)
            os.kill(server.workers()[0], signal.SIGKILL)
            eventually(lambda kills=kills: started(server) == 2 + kills)
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert set(rounds) == {(1, 12)}


def test_a_killed_worker_is_replaced_and_later_requests_succeed(serve):
    with serve("--workers", "2") as server:
        server.wait_until_ready()
        assert len(server.workers()) == 2
        load = Load(server.url)
        eventually(lambda: len(load.answers) > 50)
        victim = server.workers()[0]
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: started(server) == 3)
        replaced = time.monotonic()
        eventually(lambda: sum(sent > replaced for sent, _ in load.answers) > 50)
        load.end()
        assert load.failures(after=replaced) == []
        # The requests at work on it are lost, at most one a client; none is answered wrongly.
        assert len(load.failures()) <= 6, load.failures()
        assert victim not in server.workers()
        assert len(server.workers()) == 2


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_under_load_fails_no_request(serve, workers):
    with serve("--workers", workers) as server:
        server.wait_until_ready()
        load = Load(server.url)
        eventually(lambda: len(load.answers) > 50)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait() == 0
        load.end()
        assert load.failures() == []
        assert "Traceback" not in server.log.read_text()


def test_sighup_replaces_all_workers_and_fails_no_request(serve):
    with serve("--workers", "2") as server:
        server.wait_until_ready()
        before = set(server.workers())
        load = Load(server.url)
        eventually(lambda: len(load.answers) > 50)
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(server.workers()) == 2 and not before & set(server.workers()))
        load.end()
        assert load.failures() == []


def metrics_of(server: Server) -> dict[str, float]:
    text = server.get("/metrics", headers={"x-api-key": ADMIN}).text
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("model", "m") == "m"
    }


def test_workers_share_metrics_and_models(serve):
    keys = {"TANDEM_API_KEYS": f"root:admin:{ADMIN}"}
    with serve("--workers", "2", "--log-format", "json", **keys) as server:
        server.wait_until_ready()
        as_root = B8 | {"x-api-key": ADMIN}
        for _ in range(40):
            assert server.post(URL, content=SHOT, headers=as_root).status_code == 200
        eventually(lambda: metrics_of(server)["tandem_requests_in_flight"] == 0)
        values = metrics_of(server)
        assert values["tandem_shots_total"] == 40
        assert values["tandem_queued_shots"] == 0

        changed = httpx.put(
            f"{server.url}/v1/models/m",
            json=MODEL | {"rounds": 2},
            headers={"x-api-key": ADMIN},
            timeout=PATIENCE_SECONDS,
        )
        assert changed.status_code == 200
        eventually(lambda: server.log.read_text().count("model m is put in place") == 2)
        for victim in server.workers():  # those that come after know of it, too
            os.kill(victim, signal.SIGKILL)
        eventually(lambda: started(server) == 4)
        answers = [server.get("/v1/models/m", headers=as_root).json() for _ in range(20)]
        rounds = [answer["experiment"]["rounds"] for answer in answers]
        assert set(rounds) == {2}
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
        routes = [line["route"] for line in lines if line["logger"] == "service.access"]
        assert routes.count("/v1/models/{model_id}/decode") == 40


def test_workers_end_with_their_supervisor_and_the_next_one_removes_its_files(serve, temporary_folder):
    with serve("--workers", "2") as server:
        server.wait_until_ready()
        assert len(list(temporary_folder.glob("*/models.json"))) == 1
        workers = server.workers()
        server.process.kill()
        server.process.wait()
        eventually(lambda: not any(command_of(worker) for worker in workers))
    with own_folder(place=temporary_folder) as folder:
        assert list(temporary_folder.iterdir()) == [folder]


def test_a_model_that_cannot_be_loaded_is_one_line(serve):
    with serve("--workers", "2", model=MODEL | {"decoder": "neural", "weights": "/none"}) as server:
        assert server.process.wait() == 2
        last = server.log.read_text().splitlines()[-1]
        assert last.startswith("tandem: model m cannot be loaded")
        assert "Traceback" not in server.log.read_text()
