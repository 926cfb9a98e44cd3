"""Work beside the requests is started again when it dies, and /readyz says no when it keeps dying."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from service import background
from service.app import create_app
from service.settings import ModelSettings, Settings
from tests.helpers import eventually_async

pytestmark = pytest.mark.anyio


class Work:
    """Dies so many times, then lasts."""

    def __init__(self, deaths: int) -> None:
        self.runs = itertools.count()
        self.deaths = deaths
        self.lasts = asyncio.Event()

    async def __call__(self) -> None:
        if next(self.runs) < self.deaths:
            raise RuntimeError("no file")
        self.lasts.set()
        await asyncio.Event().wait()


async def test_work_that_dies_is_logged_and_started_again(monkeypatch, caplog):
    monkeypatch.setattr(background, "RESTART_SECONDS", 0)
    tasks, work = background.Background(), Work(deaths=2)
    tasks.start("the sweeper", work)
    await work.lasts.wait()
    assert caplog.text.count("the sweeper died") == 2
    assert tasks.dying is None
    tasks.stop()


async def test_work_that_keeps_dying_makes_the_service_unready_until_it_lasts(monkeypatch, make, client_of):
    monkeypatch.setattr(background, "RESTART_SECONDS", 0)
    monkeypatch.setattr(background, "LASTING_SECONDS", 0.2)
    model = ModelSettings(id="m", code="bb72", decoder="bposd", rounds=1, own_process=False)
    app = create_app(Settings(models=(model,)), make_decoder=make)
    async with client_of(app) as client:
        work = Work(deaths=background.MOST_DEATHS)
        app.state.engine.background.start("the sweeper", work)
        await work.lasts.wait()
        answer = await client.get("/readyz")
        assert (answer.status_code, "the sweeper" in answer.json()["detail"]) == (503, True)

        async def ready() -> bool:
            return (await client.get("/readyz")).is_success

        await eventually_async(ready)


async def test_a_key_that_is_revoked_beside_a_byte_that_is_not_utf8_ends_its_streams(lab_server, make, tmp_path):
    """Such a byte used to end the sweeper, and with it the look at which keys are revoked."""
    alice, bob = "alice-0123456789abcdef", "bob-0123456789abcdef"
    file = tmp_path / "keys"
    file.write_text(f"alice:{alice}\nbob:{bob}\n")
    model = ModelSettings(id="m", code="bb72", decoder="bposd", rounds=1, own_process=False)
    async with (
        lab_server(model, make=make, api_keys_file=file) as server,
        server.lab(headers={"X-API-Key": alice}) as lab,
    ):
        file.write_bytes(f"# J\xfcrgen\nbob:{bob}\n".encode("latin-1"))
        assert (await lab.end())[0] == 1008
