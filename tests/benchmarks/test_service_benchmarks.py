"""benchmarks/ at sizes too small to measure anything: that they ask, check and judge."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.helpers import REPOSITORY

FOLDER = REPOSITORY / "benchmarks"
MODEL = {
    "id": "bb72",
    "code": "bb72",
    "decoder": "bposd-osd0",
    "rounds": 2,
    "basis": "Z",
    "own_process": False,
    "max_batch_shots": 256,
}
NAMES = ("serving", "latency", "throughput", "load", "overload", "streams", "chaos", "kills", "fuzz")


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in NAMES}
    finally:
        sys.path.remove(str(FOLDER))
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def shots(scripts) -> Any:
    return scripts["serving"].sample_shots(200, p=0.005, seed=3, model=MODEL)


@pytest.fixture(scope="module")
def running(scripts) -> Iterator[Any]:
    bound = scripts["overload"].QUEUED
    with scripts["serving"].service(
        core=None, models=[MODEL], max_queued_shots=bound, max_shots_per_request=bound
    ) as running:
        yield running


def goals(report: Any) -> dict[str, bool]:
    assert report.rows
    return {wanted: met for wanted, _, met in report.goals}


def test_latency(scripts, running, shots):
    latency = scripts["latency"]
    rest, direct = scripts["serving"].run(latency.measure(running, shots, cores=None))
    assert len(rest) == len(direct) == len(shots) - latency.TURN
    assert len(goals(latency.report(rest, direct, p=0.003))) == 2
    assert not latency.report([1.0] * 100, [0.5] * 100, p=0.003).met
    assert latency.report([0.0105] * 100, [0.0100] * 100, p=0.003).met


def test_throughput(scripts, running, shots, monkeypatch):
    throughput = scripts["throughput"]
    monkeypatch.setattr(throughput, "WARM_UP_SECONDS", 0.1)
    turns = throughput.measure(running, shots, sizes=[8], per_call=50, seconds=0.3, rounds=1, pinned=False)
    report = throughput.report({throughput.ALL_CORES: turns}, per_call=50, p=shots.p)
    assert len(goals(report)) == 1
    assert float(report.rows[0]["service, shots/s"]) > 0


def test_overload(scripts, running, shots, monkeypatch):
    monkeypatch.setattr(scripts["throughput"], "WARM_UP_SECONDS", 0.1)
    report = scripts["overload"].measure(running, shots, seconds=0.6, clients=8, most=256)
    found = goals(report)
    assert found["every answer right, or 503 with Retry-After"]
    assert len(found) == 6


def test_load(scripts, running, shots, monkeypatch):
    monkeypatch.setattr(scripts["throughput"], "WARM_UP_SECONDS", 0.1)
    report = scripts["load"].measure(running, shots, seconds=0.2, start_mib=1.0)
    assert len(report.rows) == len(scripts["load"].SHARES)
    assert report.met


def test_streams(scripts, running, shots):
    streams = scripts["streams"]
    outcome, held = scripts["serving"].run(streams.stream_all(running, shots, streams=40, rounds=2))
    assert streams.report(outcome, held, streams=40, seconds=1.0).met
    wrong = scripts["serving"].Shots(shots.events, ~shots.answers, shots.decoder, shots.p, shots.seed)
    outcome, held = scripts["serving"].run(streams.stream_all(running, wrong, streams=3, rounds=2))
    assert not streams.report(outcome, held, streams=3, seconds=1.0).met


def test_chaos(scripts, running, shots, monkeypatch):
    chaos = scripts["chaos"]
    monkeypatch.setattr(chaos, "MALFORMED", 0.2)
    monkeypatch.setattr(chaos, "DISCONNECTING", 0.2)
    monkeypatch.setattr(chaos, "SETTLE_SECONDS", 0.3)
    report = chaos.measure(running, shots, requests=400)
    found = goals(report)
    assert found["no wrong answer"], report.goals
    assert found["no traceback in the log"]
    assert report.rows[0][""] > 100


def test_kills_are_judged(scripts, running):
    kills = scripts["kills"]
    times = kills.Times(killed=10.0, replaced=15.0, ended=20.0)
    good = kills.Outcome(answered=[1.0, 12.0, 18.0, 20.5], lost=[9.9, 10.0])
    assert kills.report(running, good, times, 0).met
    for lost in ([12.5], [20.1], [9.9] * 9):
        assert not kills.report(running, kills.Outcome(answered=[1.0], lost=lost), times, 0).met
    assert not kills.report(running, good, times, 1).met
    assert not kills.report(running, kills.Outcome(answered=[1.0], after_retries=["no answer"]), times, 0).met


def test_a_report_is_written_and_says_whether_the_goals_are_met(scripts, tmp_path, capsys):
    report = scripts["serving"].Report("some", "Something", notes=["a note"], rows=[{"a": 1, "b": np.float64(2.5)}])
    report.goal("at least 1", "2", met=True)
    assert report.write(tmp_path) == 0
    report.goal("at least 3", "2", met=False)
    assert report.write(tmp_path) == 1
    assert "| at least 3 | 2 | **missed** |" in capsys.readouterr().out
    content = json.loads((tmp_path / "some.json").read_text())
    assert content["rows"] == [{"a": 1, "b": 2.5}]
    assert [goal["met"] for goal in content["goals"]] == [True, False]
    assert (tmp_path / "some.md").read_text().startswith("# Something")
