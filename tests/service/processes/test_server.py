"""What uvicorn runs on."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from service.app import create_app
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
