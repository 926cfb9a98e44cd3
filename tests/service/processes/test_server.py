"""What uvicorn runs on."""

from __future__ import annotations

import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.app import create_app
from service.processes.server import Server
from service.settings import Settings


def test_it_is_uvloop_and_httptools():
    settings = Settings()
    config = Server(create_app(settings), settings).config
    assert config.get_loop_factory() is uvloop.new_event_loop
    config.load()
    assert issubclass(config.http_protocol_class, HttpToolsProtocol)
