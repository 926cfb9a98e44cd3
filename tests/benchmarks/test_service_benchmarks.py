"""benchmarks/ at sizes too small to measure anything: that they ask, check and judge."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import building, chaos, harness, kills, latency, load, overload, streams, throughput, traffic
from benchmarks.harness import NothingMeasured, Report, Service, Shots
from benchmarks.traffic import Outcome, Request
from tests.helpers import eventually_async

MODEL: dict[str, Any] = {
    "id": "bb72",
    "code": "bb72",
    "decoder": "bposd-osd0",
    "rounds": 2,
    "basis": "Z",
    "own_process": False,
    "max_batch_shots": 256,
}


@pytest.fixture(scope="module")
def shots() -> Shots:
    return harness.sample_shots(200, p=0.005, seed=3, model=MODEL)


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    bound = overload.QUEUED
    models = [MODEL, building.ANY | {"decoder": "bposd-osd0", "own_process": False}]
    with harness.serve(core=None, models=models, max_queued_shots=bound, max_shots_per_request=bound) as running:
        yield running


def goals(report: Report) -> dict[str, bool]:
    assert report.rows
    return {wanted: met for wanted, _, met in report.goals}


def test_latency(running: Service, shots: Shots) -> None:
    rest, direct = traffic.run(latency.measure(running, shots, cores=(None, None)))
    assert len(rest) == len(direct) == len(shots) - latency.TURN
    assert len(goals(latency.report(rest, direct, p=0.003))) == 2
    assert not latency.report([1.0] * 100, [0.5] * 100, p=0.003).met
    assert latency.report([0.0105] * 100, [0.0100] * 100, p=0.003).met


def test_throughput(running: Service, shots: Shots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "WARM_UP_SECONDS", 0.1)
    turns = throughput.measure(running, shots, sizes=[8], per_call=50, seconds=0.3, rounds=1, cores=(None, None))
    report = throughput.report({throughput.ALL_CORES: turns}, per_call=50, p=shots.p)
    assert len(goals(report)) == 1
    assert report.rows[0]["service, shots/s"] != "0"


def test_overload(running: Service, shots: Shots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "WARM_UP_SECONDS", 0.1)
    report = overload.measure(running, shots, seconds=0.6, clients=8, most=256)
    found = goals(report)
    assert found["every answer right, or 503 with Retry-After"]
    assert len(found) == 6


def test_building(running: Service, shots: Shots) -> None:
    texts = building.circuits(2, rounds=1)
    found = goals(traffic.run(building.measure(running, shots, texts=texts, rate=100.0, seconds=0.3)))
    assert found["every answer right"]
    assert len(found) == 3


def test_load(running: Service, shots: Shots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "WARM_UP_SECONDS", 0.1)
    report = load.measure(running, shots, seconds=0.2, start_mib=1.0)
    assert len(report.rows) == len(load.SHARES)
    assert report.met


def test_streams(running: Service, shots: Shots) -> None:
    outcome, held = traffic.run(streams.stream_all(running, shots, streams=40, rounds=2))
    assert streams.report(outcome, held, streams=40, seconds=1.0).met
    wrong = Shots(shots.events, ~shots.answers, shots.decoder, shots.p, shots.seed)
    outcome, held = traffic.run(streams.stream_all(running, wrong, streams=3, rounds=2))
    assert not streams.report(outcome, held, streams=3, seconds=1.0).met


def test_chaos(running: Service, shots: Shots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos, "MALFORMED", 0.2)
    monkeypatch.setattr(chaos, "DISCONNECTING", 0.2)
    monkeypatch.setattr(chaos, "SETTLE_SECONDS", 0.3)
    report = chaos.measure(running, shots, requests=400)
    found = goals(report)
    assert found["no wrong answer"], report.goals
    assert found["no traceback in the log"]
    assert int(str(report.rows[0][""])) > 100


def test_kills_are_judged(running: Service) -> None:
    times = kills.Times(killed=10.0, replaced=15.0, ended=20.0)

    def met(*lost: float, status: int = 0, retrying: str = traffic.RIGHT, plain: str = "ReadError") -> bool:
        answered = [Request(started, started, False, traffic.RIGHT) for started in (1.0, 12.0, 18.0, 20.5)]
        failed = [Request(started, started, False, plain) for started in lost]
        requests = [*answered, *failed, Request(11.0, 11.5, True, retrying)]
        return kills.report(running, requests, times, status).met

    assert met(9.9, 10.0)
    for lost in ([12.5], [20.1], [9.9] * 9):
        assert not met(*lost)
    assert not met(status=1)
    assert not met(retrying="None no answer")
    assert met(20.1, plain=traffic.REFUSED_CONNECTION)
    assert not met(19.0, plain=traffic.REFUSED_CONNECTION)
    assert not met(19.0, plain=traffic.WRONG)


def test_callers_ask_until_they_are_stopped(running: Service, shots: Shots) -> None:
    async def both_kinds() -> list[Request]:
        callers = traffic.Callers(running.url, shots, model=MODEL["id"], once=1, retrying=1)
        asking = asyncio.create_task(callers.ask())
        await eventually_async(lambda: {one.retrying for one in callers.requests} == {False, True})
        callers.stop()
        await asking
        return callers.requests

    assert {one.outcome for one in traffic.run(both_kinds())} == {traffic.RIGHT}


def test_what_measured_nothing_says_so_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    unanswered: list[Callable[[], Any]] = [
        lambda: latency.report([], [], p=0.003),
        lambda: overload.report(Outcome(sent=3), borne=100.0, seconds=1.0, most=256),
        lambda: overload.report(Outcome(sent=1, accepted=[(0.0, 1.0)]), borne=100.0, seconds=1.0, most=256),
        lambda: streams.report(streams.Outcome(), [], streams=0, seconds=1.0),
    ]
    for ask in unanswered:
        with pytest.raises(NothingMeasured):
            ask()
    with pytest.raises(SystemExit, match="2"):
        harness.run_script(unanswered[0])
    assert capsys.readouterr().err.endswith("no request was answered; give it more time or more shots\n")


@pytest.mark.parametrize("option", ["--seconds=0", "--shots=-3", "--p=none"])
def test_numbers_that_measure_nothing_are_refused(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["load.py", option])
    with pytest.raises(SystemExit, match="2"):
        load.main()
    assert "error" in capsys.readouterr().err


def test_a_report_is_written_and_says_whether_the_goals_are_met(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report("some", "Something", notes=["a note"], rows=[{"a": 1, "b": np.float64(2.5)}])
    report.goal("at least 1", "2", met=True)
    assert report.write(tmp_path) == 0
    report.goal("at least 3", "2", met=False)
    assert report.write(tmp_path) == 1
    assert "| at least 3 | 2 | **missed** |" in capsys.readouterr().out
    content = json.loads((tmp_path / "some.json").read_text())
    assert content["rows"] == [{"a": 1, "b": 2.5}]
    assert [goal["met"] for goal in content["goals"]] == [True, False]
    assert (tmp_path / "some.md").read_text().startswith("# Something")
