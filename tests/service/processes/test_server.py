"""What uvicorn runs on."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Any

import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from service.app import create_app
from service.processes.connections import Turns
from service.processes.server import Server
from service.settings import Settings


def test_it_is_uvloop_and_httptools():
    settings = Settings()
    config = Server(create_app(settings), settings).config
    assert config.get_loop_factory() is uvloop.new_event_loop
    config.load()
    make: Any = config.http_protocol_class
    with closing(uvloop.new_event_loop()) as loop:
        made = make(config=config, server_state=ServerState(), app_state={}, _loop=loop)
    assert isinstance(made.protocol, HttpToolsProtocol)


def test_requests_start_one_between_two_rounds():
    async def rounds() -> list[int]:
        started: list[int] = []
        turns, loop = Turns(), asyncio.get_running_loop()
        for number in range(4):
            turns.add(lambda number=number: started.append(number), loop=loop)
        seen = []
        while len(started) < 4:
            seen.append(len(started))
            await asyncio.sleep(0)  # what a probe would wait for
        assert started == [0, 1, 2, 3]
        return seen

    assert asyncio.run(rounds()) == [0, 1, 2, 3]
