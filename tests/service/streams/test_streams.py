"""Streams answer what the decoder answers for whole shots."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from decoder.base import Decoding, SoftDecoder
from decoder.making import make_decoder
from service.settings import ModelSettings
from simulation.bases import Basis
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample
from tests.helpers import REPOSITORY, eventually_async

pytestmark = pytest.mark.anyio

SHIPPED = ModelSettings(id="m", code="bb72", rounds=2, p=0.004)


def shots_and_answers(
    basis: Basis, rounds: int, *, shots: int, p: float = 0.004, decoder: str = "neural"
) -> tuple[np.ndarray, Any]:
    """Shots bool (shots, detectors), and what the decoder says of them as one batch."""
    experiment = MemoryExperiment.create(code="bb72", basis=basis, rounds=rounds, p=p)
    made = make_decoder(decoder, experiment)
    events = sample(experiment.circuit, shots=shots, seed=rounds).unpacked_detection_events()
    return events, made.decode_soft(events) if isinstance(made, SoftDecoder) else made.decode_batch(events)


def assert_equal(answer: dict, expected: Decoding, shot: int, *, atol: float = 0.0) -> None:
    """Without atol, bit for bit."""
    np.testing.assert_array_equal(answer["predictions"], expected.predictions[shot])
    np.testing.assert_allclose(answer["confidence"], expected.confidence[shot], rtol=0, atol=atol)
    if answer["flip_probabilities"] is not None:
        np.testing.assert_allclose(
            np.float32(answer["flip_probabilities"]), expected.flip_probabilities[shot], rtol=0, atol=atol
        )


async def test_several_experiments_over_one_connection(lab_server):
    """Both bases, different rounds, said before or not, layer by layer in turns."""
    experiments: list[tuple[Basis, int]] = [("Z", 2), ("X", 2), ("Z", 1), ("X", 3), ("Z", 4), ("Z", 4)]
    asked = [shots_and_answers(basis, rounds, shots=1) for basis, rounds in experiments]
    async with lab_server(SHIPPED) as server, server.lab() as lab:
        for stream, (basis, rounds) in enumerate(experiments):
            said = {"rounds": rounds} if stream % 2 else {}
            await lab.open(stream, basis=basis, flip_probabilities=stream < 3, **said)
        layers = [lab.layers(events[0]) for events, _ in asked]
        for t in range(5):
            for stream, parts in enumerate(layers):
                if t < len(parts):
                    await lab.layer(stream, t, parts[t], flags=int(t == len(parts) - 1))
        opened: dict[int, Any] = {}
        answers: dict[int, Any] = {}
        while len(answers) < len(experiments):
            message = await lab.receive()
            assert message["event"] in ("opened", "answer"), message
            ({"opened": opened, "answer": answers}[message["event"]])[message["stream"]] = message
        for stream, (basis, rounds) in enumerate(experiments):
            assert opened[stream] == {
                "event": "opened",
                "stream": stream,
                "model": "m",
                "basis": basis,
                "rounds": rounds if stream % 2 else None,
                "detectors": [36, 72, 36],
            }
            assert answers[stream]["rounds"] == rounds
            assert (answers[stream]["flip_probabilities"] is not None) == (stream < 3)
            assert_equal(answers[stream], asked[stream][1], 0)
        # The numbers are free again.
        await lab.open(0, basis="X")
        await lab.shot(0, asked[1][0][0])
        assert_equal((await lab.until("answer"))[0], asked[1][1], 0)
        assert await server.metric('tandem_streams_answered_total{model="m"}') == 7
        assert await server.metric('tandem_stream_answer_seconds_count{model="m"}') == 7
        assert await server.metric('tandem_open_streams{model="m"}') == 0


async def test_a_thousand_streams_at_once_equal_the_batch_bit_for_bit(lab_server):
    events, expected = shots_and_answers("Z", 6, shots=1000, p=0.001)
    connections, each = 20, 50

    async def session(server, first: int) -> None:
        async with server.lab() as lab:
            for stream in range(each):
                await lab.open(stream, rounds=6)
            opened.append(len(await lab.until("opened", each)))
            await all_open.wait()
            layers = [lab.layers(shot) for shot in events[first : first + each]]
            for t in range(7):
                for stream, parts in enumerate(layers):
                    await lab.layer(stream, t, parts[t], flags=int(t == 6))
            for answer in await lab.until("answer", each):
                answers[first + answer["stream"]] = answer

    opened: list[int] = []
    all_open = asyncio.Event()
    answers: dict[int, dict] = {}
    model = SHIPPED.model_copy(update={"p": 0.001})  # of which the shots are
    async with lab_server(model) as server, asyncio.TaskGroup() as sessions:
        for index in range(connections):
            sessions.create_task(session(server, index * each))
        await eventually_async(lambda: sum(opened) == 1000)
        assert await server.metric('tandem_open_streams{model="m"}') == 1000
        batches = await server.metric('tandem_batches_total{model="m"}')
        all_open.set()
        await eventually_async(lambda: len(answers) == 1000)
        assert await server.metric('tandem_batches_total{model="m"}') - batches < 500  # and not one by one
    for shot, answer in answers.items():
        assert_equal(answer, expected, shot)


async def test_classical_decoders_wait_for_the_last_layer(lab_server):
    model = ModelSettings(id="m", code="bb72", decoder="bposd", rounds=2, p=0.004)
    asked = [shots_and_answers("Z", rounds, shots=3, decoder="bposd") for rounds in (2, 1)]
    async with lab_server(model) as server, server.lab() as lab:
        for stream in range(6):
            await lab.open(stream)
            await lab.shot(stream, asked[stream // 3][0][stream % 3])
        for answer in await lab.until("answer", 6):
            expected = asked[answer["stream"] // 3][1]
            assert np.array_equal(answer["predictions"], expected[answer["stream"] % 3])
            assert answer["confidence"] is answer["flip_probabilities"] is None
        await lab.open(0)
        await lab.layer(0, 0, np.zeros(36, bool), flags=2)
        problem = (await lab.until("running_problem"))[0]
        assert problem["type"].endswith(":no-probabilities")
        assert problem["round"] == 0
        await lab.layer(0, 1, np.zeros(36, bool), flags=1)  # the stream goes on
        assert (await lab.until("answer"))[0]["predictions"] == [0] * 12


async def test_running_probabilities_are_those_of_a_readout_now(lab_server):
    """As if the data had been read out after round t, and had agreed with its syndrome."""
    events, expected = shots_and_answers("Z", 3, shots=1)
    async with lab_server(SHIPPED) as server, server.lab() as lab:
        await lab.open(5)
        layers = lab.layers(events[0])
        for t in range(3):
            await lab.layer(5, t, layers[t], flags=2)
            running = (await lab.until("running"))[0]
            assert running["round"] == t
            experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=t + 1, p=0.004)
            decoder: Any = make_decoder("neural", experiment)
            shot = np.concatenate([*layers[: t + 1], np.zeros(36, bool)])[None]
            np.testing.assert_allclose(
                running["flip_probabilities"], decoder.decode_soft(shot).flip_probabilities[0], atol=1e-4
            )
        await lab.layer(5, 3, layers[3], flags=1)
        assert_equal((await lab.until("answer"))[0], expected, 0)


async def test_the_example_of_the_documentation_runs(lab_server, capsys):
    text = (REPOSITORY / "docs" / "api.md").read_text()
    example = text.partition("## Streams")[2].partition("```python")[2].partition("```")[0]
    async with lab_server(ModelSettings(id="bb72", code="bb72")) as server:
        await asyncio.to_thread(exec, example.replace("localhost:8000", f"127.0.0.1:{server.port}"), {})
    words = capsys.readouterr().out
    predicted, true = words.removeprefix("predicted ").rpartition(" ")[0].split(" true ")
    assert predicted == true
