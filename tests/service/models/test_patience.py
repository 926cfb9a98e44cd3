"""One model, one experiment, one shot that takes long costs the others nothing, and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any

import pytest

from service.app import create_app
from service.client.decoding import read_decoding
from service.models.memory import BUILD_BYTES, Room
from service.settings import ModelSettings, Settings
from service.wire.schemas import ModelInfo
from tests.helpers import PATIENCE_SECONDS, eventually_async

pytestmark = pytest.mark.anyio

B8 = {"content-type": "application/octet-stream"}
SHOT = bytes(9)  # bb72, one round: 72 detectors
SLOW = 1e-7
"""The physical error rate whose decoder is slow to make."""


def kind(response) -> str:
    return response.json()["type"].rpartition(":")[2]


class SlowMaker:
    """Makes decoders, that of `SLOW` not before it is let; `made` are the rates that it was asked for."""

    def __init__(self, echo) -> None:
        self._echo = echo
        self.let = threading.Event()
        self.made: list[float] = []

    def __call__(self, model, experiment):
        self.made.append(experiment.noise.p)
        if experiment.noise.p == SLOW:
            assert self.let.wait(PATIENCE_SECONDS)
        return self._echo.make(model, experiment)


@pytest.fixture
def maker(echo):
    maker = SlowMaker(echo)
    yield maker
    maker.let.set()


def models(*names: str, **options: Any) -> tuple[ModelSettings, ...]:
    given: dict[str, Any] = {"code": "bb72", "decoder": "bposd", "rounds": 1, "own_process": False} | options
    return tuple(ModelSettings(id=name, **given) for name in names)


def decode(client, *, model="m", p: float | None = None, content: bytes = SHOT):
    params = {} if p is None else {"p": p}
    return client.post(f"/v1/models/{model}/decode", content=content, headers=B8, params=params)


async def test_a_decoder_that_is_slow_to_make_holds_up_nothing_else(client_of, maker):
    """Once one thread made everything: the others' circuits, samples and decoders waited for this one."""
    app = create_app(Settings(models=models("m", "n"), build_timeout_seconds=0.5), make_decoder=maker)
    async with client_of(app) as client:
        slow = await decode(client, p=SLOW)
        assert (slow.status_code, kind(slow), slow.headers["retry-after"]) == (503, "decode-timeout", "5")
        app.state.engine.models["n"].bounds = Settings(models=models("m"))  # others have all the time
        assert (await decode(client, model="n", p=2e-7)).status_code == 200
        for path in ("", "/circuit", "/dem"):
            for model in ("m", "n"):
                app.state.engine.models[model].circuits.seconds = PATIENCE_SECONDS
                assert (await client.get(f"/v1/models/{model}{path}", params={"p": 2e-7})).status_code == 200
        assert (await client.post("/v1/models/m/sample")).status_code == 200
        assert (await decode(client)).status_code == 200
        maker.let.set()

        async def made() -> bool:
            return (await decode(client, p=SLOW)).status_code == 200

        await eventually_async(made)
        assert maker.made.count(SLOW) == 1  # what was begun is finished, and found by who asks again


async def test_what_nobody_waits_for_any_more_is_not_made(client_of, maker):
    app = create_app(Settings(models=models("m")), make_decoder=maker)
    async with client_of(app) as client:
        slow, gone, stays = (asyncio.create_task(decode(client, p=p)) for p in (SLOW, 2e-7, 3e-7))
        builds = app.state.engine.models["m"]._decoders
        await eventually_async(lambda: len(builds._builds._builds) == 3)
        gone.cancel()
        await asyncio.wait([gone])
        maker.let.set()
        assert {(await slow).status_code, (await stays).status_code} == {200}
        assert maker.made[1:] == [SLOW, 3e-7]


@pytest.fixture
async def bposd(client_of):
    """BP-OSD in its child process, and a client to it."""
    app = create_app(Settings(models=models("m", own_process=True), max_shot_seconds=1e-4))
    async with client_of(app) as client:
        yield client, app.state.engine.models["m"]


async def test_a_child_that_is_killed_costs_no_request(bposd):
    client, model = bposd
    for _ in range(2):
        os.kill(before := model._child.pid, signal.SIGKILL)
        assert (await decode(client)).status_code == 200
        assert model._child.pid != before


async def test_a_child_that_is_stopped_costs_one_shot_and_is_replaced(bposd):
    client, model = bposd
    patience, model._child.patience_seconds = model._child.patience_seconds, 0.5
    os.kill(before := model._child.pid, signal.SIGSTOP)
    lost = await decode(client)
    assert (lost.status_code, kind(lost)) == (503, "decode-timeout")
    model._child.patience_seconds = patience
    assert (await decode(client)).status_code == 200
    assert model._child.pid != before


async def test_shots_that_were_hurried_are_told_in_every_form(bposd):
    """Noise on which belief propagation does not converge, and no time for more."""
    client, _ = bposd
    shots = SHOT + b"\x5a" * 9
    answer = await decode(client, content=shots)
    assert answer.headers["x-tandem-hurried-shots"] == "1"
    as_json = await client.post("/v1/models/m/decode", content=shots, headers=B8 | {"accept": "application/json"})
    assert as_json.json()["hurried"] == [1]
    assert "hurried" not in (await client.post("/v1/models/m/decode", json={"shots": [[0] * 72]})).json()
    tensor = {"name": "detection_events_b8", "datatype": "UINT8", "shape": [2, 9], "data": list(shots)}
    inferred = await client.post("/v2/models/m/infer", json={"inputs": [tensor]})
    assert inferred.headers["x-tandem-hurried-shots"] == "1"
    with_errors = await client.post("/v1/models/m/decode?errors=true", content=shots, headers=B8)
    assert with_errors.headers["x-tandem-hurried-shots"] == "1"
    info = ModelInfo.model_validate_json((await client.get("/v1/models/m")).content)
    for told in (answer, as_json, with_errors):
        assert read_decoding(info, told).hurried.tolist() == [False, True]
    assert 'tandem_hurried_shots_total{model="m"} 4.0' in (await client.get("/metrics")).text


_held: list[bytes] = []


def _hold(size: int) -> None:
    """Takes memory, as the decoders of many experiments do."""
    _held.append(b"x" * size)


async def test_a_child_gives_back_what_it_keeps_and_goes_on(bposd):
    client, model = bposd
    assert model.excess == 0
    before = model._child.pid
    await asyncio.to_thread(model._child.call, _hold, 2**27)
    assert model.excess >= 2**27
    await asyncio.to_thread(model.shed)
    assert (await decode(client)).status_code == 200
    assert model._child.pid != before
    assert model.excess == 0


async def test_an_experiment_for_which_there_is_no_room_is_refused(client_of, echo):
    """This process takes more than the limit already. What is there goes on."""
    app = create_app(Settings(models=models("m"), memory_limit_bytes=2**28), make_decoder=echo.make)
    async with client_of(app) as client:
        refused = await decode(client, p=2e-7)
        assert (refused.status_code, kind(refused), refused.headers["retry-after"]) == (503, "busy", "30")
        assert "256 MiB" in refused.json()["detail"]
        assert (await decode(client)).status_code == 200


class Cache:
    """Something that keeps bytes."""

    def __init__(self, excess: int) -> None:
        self.excess = excess

    def shed(self) -> None:
        self.excess = 0


def test_those_with_the_most_excess_give_it_back_and_no_others(monkeypatch):
    caches = [Cache(10), Cache(BUILD_BYTES), Cache(20)]
    monkeypatch.setattr("service.models.memory.taken", lambda pids: sum(cache.excess for cache in caches))
    with Room(BUILD_BYTES + 30, lambda: caches).take():
        assert [cache.excess for cache in caches] == [10, 0, 20]
        with pytest.raises(Exception, match="no room"), Room(BUILD_BYTES - 1, lambda: caches).take():
            pass


def test_builds_at_the_same_time_have_room_for_all_of_them(monkeypatch):
    monkeypatch.setattr("service.models.memory.taken", lambda pids: 0)
    room = Room(2 * BUILD_BYTES, lambda: [])
    with room.take(), room.take(), pytest.raises(Exception, match="no room"), room.take():
        pass
    with room.take():
        pass
