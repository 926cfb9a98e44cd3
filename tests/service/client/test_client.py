"""The Python clients against a service behind a socket."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import numpy as np
import pytest
import stim

from decoder.base import Decoding
from decoder.making import make_decoder
from service.app import create_app
from service.client import AsyncClient, Client, Retries, ServiceError
from service.client.answers import check
from service.settings import ModelSettings, Settings
from service.wire.schemas import Meaning
from simulation.bits import pack_bits
from simulation.circuits import MemoryExperiment
from simulation.faults import errors_of_dem
from tests.helpers import PATIENCE_SECONDS, eventually

DECODER = "neural"
EXPERIMENT: dict[str, Any] = {"basis": "X", "rounds": 3, "p": 0.005}
SHOTS = 120  # more than two requests may hold
NO_RETRIES = Retries(attempts=0)


def test_models_and_circuits(url, experiment):
    with Client(url) as client:
        models = client.models()
        assert [model.id for model in models] == ["bb72", "bb72-bposd"]
        assert client.model("bb72-bposd") == models[1]
        info = client.model("bb72", **EXPERIMENT)
        assert (info.experiment.basis, info.experiment.rounds, info.experiment.num_detectors) == ("X", 3, 216)
        assert stim.Circuit(client.circuit("bb72", **EXPERIMENT)) == experiment.circuit


def test_an_experiment_that_was_sent(url, experiment, samples, expected):
    """The network knows its own from others; the classical decoder takes any."""
    others = stim.Circuit("R 0\nX_ERROR(0.1) 0\nM 0\nDETECTOR rec[-1]\nOBSERVABLE_INCLUDE(0) rec[-1]")
    with Client(url, timeout_seconds=PATIENCE_SECONDS) as client:
        sent = client.add_experiment(str(experiment.circuit))
        assert client.experiments() == [sent]
        assert sent.layers == [36, 72, 72, 36]
        decoding = client.decode("bb72", samples.detection_events, experiment=sent.id, bit_packed_shots=True)
        np.testing.assert_array_equal(decoding.predictions, expected.predictions)
        sure = client.decode(
            "bb72", samples.detection_events, experiment=sent.id, bit_packed_shots=True, confidence=True
        )
        np.testing.assert_array_equal(sure.confidence, expected.confidence)  # of its own p, and not of the model's
        other = client.add_experiment(str(others.detector_error_model()), kind="dem")
        shots = np.array([[True], [False]])
        np.testing.assert_array_equal(client.decode("bb72-bposd", shots, experiment=other.id).predictions, shots)
        with pytest.raises(ServiceError, match="model bb72 cannot decode it"):
            client.decode("bb72", shots, experiment=other.id)
        for record in (sent, other):
            client.remove_experiment(record.id)
        assert client.experiments() == []
        with pytest.raises(ServiceError, match="no experiment") as unknown:
            client.decode("bb72-bposd", shots, experiment=other.id)
        assert unknown.value.status == 404


def test_errors_and_reweights(url, experiment, samples):
    """Also in as many requests as the limits ask for."""
    shots, some = samples.detection_events[:60], samples.detection_events[:3]
    decoder: Any = make_decoder("bposd", experiment)
    found = decoder.decode_to_errors(shots, bit_packed_shots=True)
    priors = errors_of_dem(experiment.dem)[1]
    values = np.stack([priors, priors, np.full(len(priors), 0.01)])
    with Client(url, timeout_seconds=PATIENCE_SECONDS) as client:
        assert [model.gives_errors for model in client.models()] == [False, True]
        told = client.decode("bb72-bposd", shots, **EXPERIMENT, bit_packed_shots=True, errors=True)
        for column in ("predictions", "errors", "converged"):
            np.testing.assert_array_equal(getattr(told, column), getattr(found, column))
        given: tuple[tuple[Any, Meaning], ...] = (
            (values, "probabilities"),
            (values / priors, "factors"),
            (values[2], "probabilities"),
        )
        for reweights, meaning in given:
            decoding = client.decode(
                "bb72-bposd", some, **EXPERIMENT, bit_packed_shots=True, reweights=reweights, reweights_are=meaning
            )
            wanted = decoder.decode_batch(some, bit_packed_shots=True, reweights=reweights, reweights_are=meaning)
            np.testing.assert_array_equal(decoding.predictions, wanted)
        with pytest.raises(ValueError, match="for 3 shots"):
            client.decode("bb72-bposd", some, **EXPERIMENT, bit_packed_shots=True, reweights=values[:2])
        with pytest.raises(ServiceError, match="takes no reweights"):
            client.decode("bb72", some, **EXPERIMENT, bit_packed_shots=True, reweights=values)
        with pytest.raises(ServiceError, match="tells no errors"):
            client.decode("bb72", some, **EXPERIMENT, bit_packed_shots=True, errors=True)


@pytest.mark.parametrize("form", ["packed", "bools", "integers"])
def test_predictions_are_those_of_the_decoder_bit_for_bit(url, samples, expected, form):
    shots = samples.detection_events if form == "packed" else samples.unpacked_detection_events()
    if form == "integers":
        shots = shots.astype(np.int64)
    with Client(url) as client:
        decoding = client.decode("bb72", shots, **EXPERIMENT, bit_packed_shots=form == "packed")
    assert decoding.predictions.dtype == np.bool_
    np.testing.assert_array_equal(decoding.predictions, expected.predictions)
    assert decoding.confidence is None
    assert decoding.flip_probabilities is None


def test_probabilities(url, samples, expected):
    with Client(url) as client:
        decoding = client.decode(
            "bb72",
            samples.detection_events,
            **EXPERIMENT,
            bit_packed_shots=True,
            confidence=True,
            flip_probabilities=True,
        )
        np.testing.assert_array_equal(decoding.predictions, expected.predictions)
        assert (decoding.confidence.dtype, decoding.flip_probabilities.dtype) == (
            np.dtype(np.float64),
            np.dtype(np.float32),
        )
        np.testing.assert_allclose(decoding.confidence, expected.confidence, atol=1e-4)
        np.testing.assert_allclose(decoding.flip_probabilities, expected.flip_probabilities, atol=1e-4)
        quiet = np.zeros((2, 144), dtype=np.bool_)
        one = client.decode("bb72", quiet, confidence=True)
        assert (one.confidence.shape, one.flip_probabilities) == ((2,), None)
        assert client.decode("bb72-bposd", quiet, confidence=True).confidence is None


class Exact:
    """A decoder whose probabilities have digits that neither float32 nor a shortened text would keep."""

    def __init__(self, experiment) -> None:
        self.num_detectors, self.num_observables = experiment.num_detectors, experiment.num_observables

    def decode_batch(self, shots, *, bit_packed_shots=False, bit_packed_predictions=False):
        raise AssertionError("decode_soft says more")

    def decode_soft(self, shots, *, bit_packed_shots=False):
        first = shots[:, 0].astype(np.float64)  # each shot has its own, whatever batch it is in
        flips = (np.outer(1 + first, np.arange(12)) / 7777).astype(np.float32)
        return Decoding(np.zeros((len(shots), 12), dtype=np.bool_), 1 - 1e-12 / (3 + first), flips)


def test_probabilities_to_the_last_bit(listen):
    model = ModelSettings(id="m", code="bb72", rounds=1)
    app = create_app(
        Settings(models=(model,), max_shots_per_request=7), make_decoder=lambda model, experiment: Exact(experiment)
    )
    shots = np.random.default_rng(1).integers(0, 256, (20, 9), dtype=np.uint8)
    with listen(app) as url, Client(url) as client:
        decoding = client.decode("m", shots, bit_packed_shots=True, confidence=True, flip_probabilities=True)
    expected = Exact(MemoryExperiment.create(code="bb72", basis="Z", rounds=1, p=0.001)).decode_soft(shots)
    np.testing.assert_array_equal(decoding.confidence, expected.confidence)
    np.testing.assert_array_equal(decoding.flip_probabilities, expected.flip_probabilities)


@pytest.mark.anyio
async def test_the_asyncio_client(url, experiment, samples, expected):
    async with AsyncClient(url) as client:
        assert [model.id for model in await client.models()] == ["bb72", "bb72-bposd"]
        assert stim.Circuit(await client.circuit("bb72", **EXPERIMENT)) == experiment.circuit
        parts = [samples.detection_events[start : start + 60] for start in (0, 60)]
        answers = await asyncio.gather(
            *(client.decode("bb72", part, **EXPERIMENT, bit_packed_shots=True, confidence=True) for part in parts)
        )
        predictions = np.concatenate([answer.predictions for answer in answers])
        np.testing.assert_array_equal(predictions, expected.predictions)
        assert answers[0].confidence.shape == (60,)
        with pytest.raises(ServiceError, match="bb73") as caught:
            await client.model("bb73")
        assert caught.value.status == 404


def test_no_shots(url):
    with Client(url) as client:
        assert client.decode("bb72", np.zeros((0, 144), dtype=np.bool_)).predictions.shape == (0, 12)


@pytest.mark.parametrize(
    ("shots", "says"),
    [
        (np.zeros((2, 143), dtype=np.bool_), "143"),
        (np.zeros(144, dtype=np.bool_), "two-dimensional"),
        (np.full((1, 144), 2), "0 or 1"),
        (np.zeros((1, 144)), "float64"),
    ],
)
def test_wrong_shots_are_not_sent(url, shots, says):
    with Client(url) as client, pytest.raises(ValueError, match=says):
        client.decode("bb72", shots)


@pytest.mark.parametrize("method", ["model", "circuit", "decode"])
def test_an_option_that_there_is_not(url, method):
    shots = [np.zeros((1, 144), dtype=np.bool_)] if method == "decode" else []
    with Client(url) as client, pytest.raises(TypeError, match="'round'"):
        getattr(client, method)("bb72", *shots, round=3)


def test_an_error_has_its_status_its_type_and_its_detail(url):
    with Client(url) as client:
        with pytest.raises(ServiceError, match="there is no model 'bb73'; this service has bb72") as caught:
            client.decode("bb73", np.zeros((1, 144), dtype=np.bool_))
        assert isinstance(caught.value, OSError)
        assert caught.value.status == 404
        assert caught.value.type == "urn:problem-type:tandem:unknown-model"
        with pytest.raises(ServiceError, match="rounds=5") as caught:
            client.model("bb72", rounds=5)
        assert caught.value.status == 422


@pytest.mark.parametrize("model_id", ["", ".", "..", "bb72/decode", "bb72?p=0.1", "bb72#", "bb72%2f", "a\nb", "a\\b"])
def test_ids_that_would_lead_elsewhere(url, model_id):
    with Client(url) as client, pytest.raises(ValueError, match="not the id of a model"):
        client.model(model_id)


@pytest.mark.parametrize(
    "url", ["", "localhost", "localhost:8000", "ftp://localhost", "http://", "http://h:x", "http://h?a=1", "//h"]
)
def test_what_is_no_url(url):
    with pytest.raises(ValueError, match="not the URL of a service"):
        Client(url)


def test_a_url_with_a_password_is_refused_and_not_repeated():
    with pytest.raises(ValueError, match="TANDEM_API_KEY") as caught:
        Client("http://me:secret@localhost")
    assert "secret" not in str(caught.value)


def test_nobody_listens():
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(ServiceError, match="no answer") as caught:
            client.models()
    assert (caught.value.status, caught.value.type) == (None, None)


@pytest.fixture
def busy(listen, make, echo):
    """A service with one place, which is taken, and what frees it."""

    @contextmanager
    def busy():
        model = ModelSettings(id="m", code="bb72", decoder="bposd", rounds=1, own_process=False)
        app = create_app(Settings(models=(model,), max_requests_in_flight=1), make_decoder=make)
        with listen(app) as url, Client(url) as first:
            echo.hold()
            thread = threading.Thread(target=first.decode, args=("m", np.zeros((1, 72), dtype=np.bool_)))
            thread.start()
            eventually(lambda: echo.batches)
            try:
                yield url, echo.gate
            finally:
                echo.gate.set()
                thread.join()

    return busy


SHOT = np.eye(1, 72, 3, dtype=np.bool_)


def refusals(url: str) -> int:
    """How many requests the service had no place for so far."""
    found = re.search(r'^tandem_failures_total{model="m",reason="busy"} (\d+)', httpx.get(f"{url}/metrics").text, re.M)
    return int(found[1]) if found else 0


@contextmanager
def freed_after_a_refusal(url, gate):
    def free() -> None:
        eventually(lambda: refusals(url))
        gate.set()

    thread = threading.Thread(target=free)
    thread.start()
    yield
    thread.join()


def test_a_busy_service_is_asked_again_when_it_said(busy):
    with busy() as (url, gate), Client(url) as client, freed_after_a_refusal(url, gate):
        begun = time.monotonic()
        assert client.decode("m", SHOT).predictions[0, 3]
        assert time.monotonic() - begun >= 1  # Retry-After


@pytest.mark.anyio
async def test_a_busy_service_is_asked_again_by_the_asyncio_client(busy):
    with busy() as (url, gate), freed_after_a_refusal(url, gate):
        async with AsyncClient(url) as client:
            assert (await client.decode("m", SHOT)).predictions[0, 3]


@pytest.mark.parametrize(
    ("retries", "asked"), [(NO_RETRIES, 1), (Retries(max_wait_seconds=0.5), 1), (Retries(attempts=1), 2)]
)
def test_retries_are_bounded(busy, retries, asked):
    with busy() as (url, _), Client(url, retries=retries) as client:
        with pytest.raises(ServiceError, match="at work already") as caught:
            client.decode("m", SHOT)
        assert (caught.value.status, caught.value.retry_after) == (503, 1)
        assert caught.value.type == "urn:problem-type:tandem:busy"
        assert refusals(url) == asked


class Recorder(BaseHTTPRequestHandler):
    """Another service than ours, which notes what it is sent."""

    seen: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["Authorization"]))
        self.send_response(200 if self.path.endswith("models") else 302)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def other():
    handler: Any = type("Handler", (Recorder,), {"seen": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler.seen
        server.shutdown()
        thread.join()


def test_another_service_is_found_out(other):
    with Client(other[0]) as client:
        with pytest.raises(ServiceError, match="answered 200 OK, not as a service") as caught:
            client.models()
        assert caught.value.status == 200
        with pytest.raises(ServiceError, match="answered 302 Found, not as a service"):
            client.model("m")
    assert len(other[1]) == 2


def test_the_key_and_a_path_before_the_service(other, monkeypatch):
    def sent(url: str, **options: Any) -> tuple[str, str | None]:
        with Client(url, **options) as client, pytest.raises(ServiceError):
            client.models()
        return other[1][-1]

    monkeypatch.delenv("TANDEM_API_KEY", raising=False)
    assert sent(other[0]) == ("/v1/models", None)
    assert sent(f"{other[0]}/tandem/") == ("/tandem/v1/models", None)
    monkeypatch.setenv("TANDEM_API_KEY", "from the environment")
    assert sent(other[0])[1] == "Bearer from the environment"
    assert sent(other[0], api_key="given")[1] == "Bearer given"
    assert sent(other[0], api_key="")[1] is None
    with pytest.raises(ValueError, match="TANDEM_API_KEY"):
        Client(other[0], api_key="two\nlines")


def test_only_seconds_are_read_from_retry_after():
    request = httpx.Request("GET", "http://h/")
    for value, seconds in (("7", 7), ("-1", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)):
        with pytest.raises(ServiceError) as caught:
            check(httpx.Response(503, headers={"retry-after": value}, request=request))
        assert caught.value.retry_after == seconds


def test_shots_in_another_order_of_memory(url, samples, expected):
    shots = samples.unpacked_detection_events()
    with Client(url) as client:
        packed = client.decode("bb72", np.asfortranarray(pack_bits(shots)), **EXPERIMENT, bit_packed_shots=True)
    np.testing.assert_array_equal(packed.predictions, expected.predictions)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "http://127.0.0.1:9"])
def test_proxies_of_the_environment(monkeypatch, kind, proxy):
    """One that cannot be used is named; it is no matter for this machine, and for hosts of NO_PROXY."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", "lab.example")
    for direct in ("http://127.0.0.1:1", "http://localhost", "https://lab.example:8000"):
        kind(direct)
    if proxy.startswith("http"):
        kind("http://other.example")
    else:
        with pytest.raises(ValueError, match="NO_PROXY"):
            kind("http://other.example")
