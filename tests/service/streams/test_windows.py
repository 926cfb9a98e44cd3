"""Streams in windows: decoded while their layers come, as the decoder in windows decodes whole shots."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
import stim

from decoder.making import make_decoder
from decoder.windows.decoder import Fixed, WindowDecoder, WindowPlan
from service.client import AsyncClient, Client, Committed, ServiceError
from service.settings import ModelSettings
from simulation.bases import Basis
from simulation.bits import Bits
from simulation.circuits import MemoryExperiment
from simulation.foreign.layers import layer_of_detectors
from simulation.shots.sampling import sample
from tests.helpers import PATIENCE_SECONDS, eventually_async

pytestmark = pytest.mark.anyio

P, ROUNDS, WINDOW, COMMIT = 0.004, 12, 6, 2
MODEL = ModelSettings(id="m", code="bb72", decoder="bposd-osd0", rounds=1, p=P, own_process=False)


def windows(basis: Basis = "Z", *, decoder: str = "bposd-osd0", rounds: int = ROUNDS) -> tuple[WindowDecoder, Bits]:
    """What decodes whole shots in windows, and shots for it."""
    experiment = MemoryExperiment.create(code="bb72", basis=basis, rounds=rounds, p=P)
    found = make_decoder(f"{decoder}-window-{WINDOW}-{COMMIT}", experiment)
    assert isinstance(found, WindowDecoder)
    return found, sample(experiment.circuit, shots=4, seed=3).unpacked_detection_events()


def expected_commits(decoder: WindowDecoder, shot: Bits) -> list[tuple[int, list[int]]]:
    """The layers that are fixed and the flips so far, each time that they change before the end."""
    stream, told = decoder.stream(), []
    for layer in decoder.layers:
        before = stream.committed
        stream.fold(shot[None, layer])
        if stream.committed != before:
            told.append((stream.committed, stream.predictions[0].astype(int).tolist()))
    return told[:-1]


async def told(lab: Any, count: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All that is committed, and the answer, of one stream."""
    committed: list[dict[str, Any]] = []
    while (message := await lab.receive())["event"] != "answer":
        assert message["event"] in ("opened", "committed"), message
        committed += [message] if message["event"] == "committed" else []
    assert len(committed) == count
    return committed, message


@pytest.mark.parametrize(
    ("model", "rounds"),
    [(MODEL, None), (MODEL.model_copy(update={"decoder": "serial-1", "own_process": None}), ROUNDS)],
    ids=["rounds not known", "in a child process"],
)
async def test_streams_tell_what_is_fixed_and_answer_as_whole_shots(lab_server, model, rounds):
    decoder, shots = windows(decoder=model.decoder)
    assert decoder.predict(shots).any()
    async with lab_server(model, max_rounds=ROUNDS) as server, server.lab() as lab:
        for number, shot in enumerate(shots):
            await lab.open(number, window=WINDOW, commit=COMMIT, rounds=rounds)
            await lab.shot(number, shot)
            wanted = expected_commits(decoder, shot)
            committed, answer = await told(lab, len(wanted))
            assert [(one["layers"], one["predictions"]) for one in committed] == wanted
            assert answer["predictions"] == decoder.predict(shot[None])[0].astype(int).tolist()
            assert answer["confidence"] is answer["flip_probabilities"] is None
            assert answer["rounds"] == ROUNDS
            assert isinstance(answer["converged"], bool)
        assert await server.metric('tandem_open_streams{model="m"}') == 0


async def test_many_streams_at_once_share_batches_and_are_longer_than_whole_shots_may_be(lab_server):
    decoder, shots = windows("X", rounds=30)
    async with lab_server(MODEL, max_rounds=WINDOW) as server, server.lab() as lab:
        for number in range(len(shots)):
            await lab.open(number, window=WINDOW, commit=COMMIT, rounds=30, basis="X")
        layers = [lab.layers(shot) for shot in shots]
        for t in range(31):
            for number, parts in enumerate(layers):
                await lab.layer(number, t, parts[t], flags=int(t == 30))
        answers: dict[int, list[int]] = {}
        while len(answers) < len(shots):
            message = await lab.receive()
            if message["event"] == "answer":
                answers[message["stream"]] = message["predictions"]
        assert await server.metric('tandem_shots_total{model="m"}') > 12 * len(shots)
    np.testing.assert_array_equal([answers[number] for number in range(len(shots))], decoder.predict(shots))


async def test_a_circuit_of_the_clients_own_and_a_model_with_windows_of_its_own(lab_server):
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_z", distance=3, rounds=9, after_clifford_depolarization=0.01
    )
    model = MODEL.model_copy(update={"decoder": "bposd-osd0-window-4-2", "rounds": 4})
    layer_of, shots = layer_of_detectors(circuit), sample(circuit, shots=40, seed=1).unpacked_detection_events()
    expected = make_decoder(model.decoder, circuit).decode_batch(shots)
    assert expected.any()
    async with lab_server(model) as server, AsyncClient(server.http, timeout_seconds=PATIENCE_SECONDS) as client:
        own = await client.add_experiment(str(circuit))
        for shot, flips in zip(shots, expected, strict=True):
            commits: list[Committed] = []
            async with client.stream("m", experiment=own.id, on_committed=commits.append) as stream:
                assert stream.detectors == own.layers
                for t in range(len(own.layers)):
                    await stream.send(shot[layer_of == t], last=t == len(own.layers) - 1)
                answer = await stream.answer()
            np.testing.assert_array_equal(answer.predictions, flips)
            assert [one.layers for one in commits] == [2, 4, 6]
            assert answer.converged == (commits[-1].converged and answer.converged)


def test_the_client_for_threads(url):
    """It also opens streams that are decoded as a whole, and tells what is wrong."""
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=4, p=0.002)
    shot = sample(experiment.circuit, shots=8, seed=5).unpacked_detection_events()[0]
    layers = np.split(shot, [36, 108, 180, 252])
    answers = []
    with Client(url, timeout_seconds=PATIENCE_SECONDS) as client:
        options: Any
        for options in ({"window": 3, "commit": 1}, {}):
            commits: list[int] = []
            note = lambda told: commits.append(told.layers)  # noqa: B023, E731
            with client.stream("bb72-bposd", rounds=4, on_committed=note, **options) as stream:
                for t, layer in enumerate(layers):
                    stream.send(layer, last=t == 4)
                answers.append(stream.answer())
            assert commits == ([1, 2] if options else [])
        assert (answers[0].converged, answers[1].converged) == (True, None)
        np.testing.assert_array_equal(answers[0].predictions, answers[1].predictions)
        with pytest.raises(ServiceError, match="tells no errors") as refused, client.stream("bb72", window=3):
            pass
        assert (refused.value.status, refused.value.type) == (422, "urn:problem-type:tandem:invalid-parameters")
        with pytest.raises(ServiceError, match="no model 'bb73'"), client.stream("bb73"):
            pass
        with client.stream("bb72", rounds=2) as stream, pytest.raises(ValueError, match="35 detection events"):
            stream.send(shot[:35])


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"commit": 2}, "add window"),
        ({"window": 2, "commit": 3}, "commit=3 must be at most window=2"),
        ({"window": 2, "commit": 2, "rounds": 8}, "too short to fix 2"),
        ({"window": 10, "rounds": 8}, "a window of 10 layers is longer than the 9"),
        ({"window": 14}, "a window of 14 layers is longer than the 13"),
        ({"window": 0}, "greater than or equal to 1"),
        ({"window": 6.5}, "valid integer"),
        ({"window": 4, "rounds": 10_001}, "more than the 10000"),
        ({"rounds": 13}, "more than the 12"),
    ],
)
async def test_what_is_refused(lab_server, members, says):
    async with lab_server(MODEL, max_rounds=ROUNDS) as server, server.lab() as lab:
        await lab.open(3, **members)
        message = (await lab.until("problem"))[0]
        assert (message["status"], message["type"].rpartition(":")[2]) == (422, "invalid-parameters")
        assert says in message["detail"]


async def test_a_model_with_windows_takes_no_others_and_tells_no_running_probabilities(lab_server):
    model = MODEL.model_copy(update={"decoder": "bposd-osd0-window-4-2", "rounds": 4})
    async with lab_server(model) as server, server.lab() as lab:
        await lab.open(1, window=4)
        assert "windows of its own" in (await lab.until("problem"))[0]["detail"]
        await lab.open(2, rounds=3)
        await lab.layer(2, 0, np.zeros(36, bool), flags=2)
        assert (await lab.until("running_problem"))[0]["round"] == 0
        for t in (1, 2, 3):
            await lab.layer(2, t, np.zeros(36 if t == 3 else 72, bool), flags=int(t == 3))
        assert (await lab.until("answer"))[0]["predictions"] == [0] * 12


class Held:
    """A decoder in windows of two layers, that predicts the first detectors of each and waits for a gate."""

    plan = WindowPlan(window=2, commit=1, first=1, period=1, last=499, at_once=1)

    def __init__(self, model: ModelSettings, experiment: MemoryExperiment, gate: threading.Event) -> None:
        self.num_detectors, self.num_observables, self._gate = (
            experiment.num_detectors,
            experiment.num_observables,
            gate,
        )

    def prepare(self) -> None:
        pass

    def decode_batch(self, shots, *, bit_packed_shots=False, bit_packed_predictions=False):
        return np.zeros((len(shots), self.num_observables), np.bool_)

    def fix(self, start: int, events: Bits) -> Fixed:
        assert self._gate.wait(PATIENCE_SECONDS)
        fixed = 36 if start == 0 else 72
        return Fixed(events[:, :12], events[:, fixed:], np.ones(len(events), np.bool_))


async def test_a_client_that_is_faster_than_the_decoder_waits(lab_server):
    """What the service holds of a stream does not grow with it."""
    gate = threading.Event()
    model = MODEL.model_copy(update={"decoder": "bposd"})
    make = lambda model, experiment: Held(model, experiment, gate)  # noqa: E731
    async with lab_server(model, make=make) as server, server.lab() as lab:
        await lab.open(1, window=2, commit=1, rounds=500)
        [stream] = await eventually_async(
            lambda: [s for c in server.app.state.streams._connections for s in c._streams.values()]
        )
        layer = np.zeros(72, np.bool_)
        layer[3] = True

        async def send() -> None:
            for t in range(501):
                await lab.layer(1, t, layer[:36] if t in (0, 500) else layer, flags=int(t == 500))

        sending = asyncio.create_task(send())
        await eventually_async(lambda: stream._waiting.full())
        await asyncio.sleep(0)
        assert stream.received <= 2 + 2 + 1
        assert not stream.waits  # so that it does not end as idle
        gate.set()
        committed, answer = await told(lab, 499)
        await sending
        assert [one["layers"] for one in committed] == list(range(1, 500))
        assert answer["predictions"] == [0, 0, 0, 500 % 2] + [0] * 8


async def test_a_stream_that_is_closed_lets_its_connection_go_on(lab_server):
    gate = threading.Event()
    model = MODEL.model_copy(update={"decoder": "bposd"})
    make = lambda model, experiment: Held(model, experiment, gate)  # noqa: E731
    async with lab_server(model, make=make) as server, server.lab() as lab:
        await lab.open(1, window=2, commit=1)
        for t in range(3):
            await lab.layer(1, t, np.zeros(72 if t else 36, np.bool_))
        await lab.close(1)
        await lab.until("closed")
        gate.set()
        await server.until_metric('tandem_open_streams{model="m"}', 0)
