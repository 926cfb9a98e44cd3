from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from service.app import create_app
from service.models.prepared import Prepared
from service.settings import ModelSettings, Settings
from service.wire.schemas import AnyExperimentQuery
from tests.helpers import eventually_async
from tests.service.conftest import EchoDecoder

pytestmark = pytest.mark.anyio


class Made:
    """A maker of decoders that keeps count."""

    def __init__(self, decoder) -> None:
        self.decoder = decoder
        self.rates: list[float] = []
        self.fail = False

    def __call__(self, model, experiment):
        self.rates.append(experiment.noise.p)
        if self.fail:
            raise ValueError("weights of another code")
        self.decoder.num_detectors = experiment.num_detectors
        return self.decoder


@pytest.fixture
def made(echo) -> Made:
    return Made(echo)


@pytest.fixture
async def engine(made):
    model = ModelSettings(id="m", code="bb72", decoder="bposd", rounds=1, p=1e-6, own_process=False)
    app = create_app(Settings(models=(model,), decoder_cache_size=2), make_decoder=made)
    async with app.router.lifespan_context(app):
        await eventually_async(lambda: app.state.engine.models["m"].ready)
        yield app.state.engine


async def ask(engine, p: float) -> None:
    await Prepared.of(engine.model("m"), AnyExperimentQuery(p=p))


async def test_a_decoder_is_made_once_however_many_ask(engine, made):
    await asyncio.gather(*(ask(engine, 1e-7) for _ in range(20)))
    await ask(engine, 1e-7)
    assert made.rates == [1e-6, 1e-7]


async def test_the_least_recently_used_decoder_is_dropped_but_never_the_default(engine, made):
    for p in (1e-7, 2e-7, 1e-7, 3e-7):  # 2e-7 has to go
        await ask(engine, p)
    made.rates.clear()
    for p in (1e-6, 1e-7, 3e-7):
        await ask(engine, p)
    assert made.rates == []
    await ask(engine, 2e-7)
    assert made.rates == [2e-7]


async def test_a_decoder_that_could_not_be_made_is_tried_again(engine, made):
    made.fail = True
    with pytest.raises(Exception, match="weights of another code"):
        await ask(engine, 1e-7)
    made.fail = False
    await ask(engine, 1e-7)
    assert made.rates == [1e-6, 1e-7, 1e-7]


async def test_a_client_that_leaves_does_not_stop_a_build_that_others_wait_for(engine, made, echo):
    echo.gate.clear()
    gone, stays = (asyncio.create_task(ask(engine, 1e-7)) for _ in range(2))
    await eventually_async(lambda: len(made.rates) == 2)
    gone.cancel()
    echo.gate.set()
    await stays
    assert made.rates == [1e-6, 1e-7]


async def test_a_model_that_is_replaced_keeps_no_decoder_also_where_garbage_is_never_collected():
    made: list[weakref.ref[EchoDecoder]] = []

    def make(settings, experiment):
        decoder = EchoDecoder(num_detectors=experiment.num_detectors)
        made.append(weakref.ref(decoder))
        return decoder

    model = ModelSettings(id="m", code="bb72", decoder="bposd", rounds=1, p=1e-6, own_process=False)
    app = create_app(Settings(models=(model,)), make_decoder=make)
    async with app.router.lifespan_context(app):
        await eventually_async(lambda: app.state.engine.models["m"].ready)
        await ask(app.state.engine, 1e-7)
        gc.freeze()  # as the server does
        try:
            await app.state.changes.put(model.model_copy(update={"p": 1e-5}))
            await eventually_async(lambda: [decoder() for decoder in made[:2]] == [None, None])
        finally:
            gc.unfreeze()
