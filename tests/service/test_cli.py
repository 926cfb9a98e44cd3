"""`tandem serve` as users run it: a process, a socket, signals."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import httpx
import numpy as np
import pytest
from websockets import Subprotocol
from websockets.sync.client import connect

from service.cli import main
from service.client import Client
from service.settings import Settings, variable
from tests.helpers import PATIENCE_SECONDS, children_of, command_of, eventually
from tests.service.served import Server, serve, start

MODEL = {"id": "bb72-bposd", "code": "bb72", "decoder": "bposd", "rounds": 2, "p": 0.002}
URL = "/v1/models/bb72-bposd/decode"
B8 = {"content-type": "application/octet-stream"}


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    with serve(tmp_path / "log", "--uds", str(tmp_path / "socket"), model=MODEL) as server:
        yield server


def test_serve_decodes_and_finishes_its_work_on_sigterm(server, tmp_path):
    assert server.get("/healthz").status_code == 200  # before any model is loaded
    server.wait_until_ready()
    response = server.post(URL, content=bytes(18), headers=B8)
    assert (response.status_code, response.content) == (200, bytes(2))
    _a_long_chunked_body_gets_its_answer(server)
    _a_second_server_on_the_port_says_so_and_exits(server.port)
    with Client(f"unix:{tmp_path}/socket") as near:
        assert not near.decode("bb72-bposd", np.zeros((3, 144), dtype=bool)).predictions.any()

    # Random detection events are hard shots: together some seconds of work.
    shots = np.random.default_rng(0).integers(0, 256, (10, 18), dtype=np.uint8).tobytes()
    answers = []
    sent = time.monotonic()
    client = threading.Thread(target=lambda: answers.append(server.post(URL, content=shots, headers=B8)))
    client.start()
    eventually(lambda: 'requests_total{model="bb72-bposd"} 4.0' in server.get("/metrics").text)
    server.process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    client.join()
    assert answers[0].status_code == 200
    assert len(answers[0].content) == 20
    assert asked - sent < float(answers[0].headers["server-timing"].rpartition("=")[2]) / 1e3  # it was at work
    assert server.process.wait() == 0
    assert not (tmp_path / "socket").exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/healthz")
    assert "Traceback" not in server.log.read_text()


def test_sigterm_ends_streams_with_an_answer_or_a_reason(server):
    server.wait_until_ready()
    url = f"ws://127.0.0.1:{server.port}/v1/models/bb72-bposd/stream"
    with connect(url, subprotocols=[Subprotocol("tandem.stream.v1")]) as stream:
        for number in (0, 1):
            stream.send(json.dumps({"action": "open", "stream": number, "rounds": 2}))
            assert json.loads(stream.recv(PATIENCE_SECONDS))["event"] == "opened"
        rng = np.random.default_rng(0)  # random detection events are hard shots: this one takes a while
        for t, size in enumerate((36, 72, 36)):
            events = np.packbits(rng.random(size) < 0.5, bitorder="little").tobytes()
            stream.send(struct.pack("<IHBB", 0, t, t == 2, 0) + events)
        count = 'stream_messages_total{direction="in",model="bb72-bposd"} 5.0'
        eventually(lambda: count in server.get("/metrics").text)
        server.process.send_signal(signal.SIGTERM)
        received = [json.loads(message) for message in stream]
    said = {message["stream"]: message["event"] for message in received}
    assert said == {0: "answer", 1: "problem"}
    assert next(message for message in received if message["stream"] == 1)["type"].endswith(":closing")
    assert stream.close_code == 1001
    assert server.process.wait() == 0
    assert "Traceback" not in server.log.read_text()


def _a_long_chunked_body_gets_its_answer(server: Server) -> None:
    """The client sends all it has before it reads, so the server must not stop listening at its limit."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)) as connection:
        chunks = (bytes(2**20) for _ in range(20))
        connection.request("POST", URL, body=chunks, headers=B8, encode_chunked=True)
        response = connection.getresponse()
        assert response.status == 413
        assert json.loads(response.read())["type"].endswith(":body-too-large")


def _a_second_server_on_the_port_says_so_and_exits(port: int) -> None:
    with start("--port", str(port), model=MODEL) as second:
        out, err = second.communicate()
    assert second.returncode == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert f"127.0.0.1:{port}" in err
    assert "in use" in err
    assert "--port" in err


def test_ctrl_c_while_models_are_loaded_ends_it_cleanly(server):
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait() == 0
    assert "Traceback" not in server.log.read_text()


def test_its_decoders_end_with_it_even_when_it_is_killed(server):
    server.wait_until_ready()
    children = children_of(server.process.pid)
    assert children
    server.process.kill()
    server.process.wait()
    eventually(lambda: not any(command_of(child) for child in children))


@pytest.mark.parametrize(
    ("model", "environment", "says"),
    [
        ({}, {"TANDEM_MAX_ROUNDS": "many"}, "TANDEM_MAX_ROUNDS"),
        ({"code": "bb73"}, {}, "bb73"),
        ({"weights": "/none"}, {}, "bb72-bposd cannot be loaded"),
    ],
)
def test_settings_that_are_wrong_are_one_line(model, environment, says):
    with start("--port", "0", model=MODEL | model, **environment) as process:
        _, err = process.communicate()
    assert process.returncode == 2, err
    line = err.splitlines()[-1]
    assert line.startswith("tandem: ")
    assert says in line
    assert "Traceback" not in err


def test_a_port_without_a_listener_is_found_out_too():
    """A socket that is bound but does not listen yet makes the port as busy."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        _a_second_server_on_the_port_says_so_and_exits(taken.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--host", "0.0.0.0"), "--insecure"),
        (("--host", "300.1.1.1"), "cannot listen on 300.1.1.1:"),
        (("--host", "0.0.0.0", "--set", "log_format=json"), "no API keys"),
        (("--set", "max_round=3"), "no setting 'max_round'"),
        (("--set", "max_rounds"), "NAME=VALUE"),
        (("--set", "max_rounds=many"), "--set max_rounds:"),
        (("--log-format", "xml"), "--set log_format:"),
        (("--set", "api_keys=alice:short"), "at least 16"),
        (("--host", "0.0.0.0", "--set", "api_keys=,"), "holds no key"),
        (("--insecure", "--set", "api_keys="), "holds no key"),
        (("--api-keys-file", "/none/keys"), "/none/keys"),
        (("--uds", "/none/socket"), "/none/socket"),
        (("--uds", "/tmp/" + "x" * 200), "too long"),
        (("--uds", __file__, "--no-port"), "no socket"),
        (("--uds", "/none/socket", "--uds-mode", "rw"), "octal"),
        (("--no-port",), "--uds"),
        (("--port", "0", "--set", "grpc_uds=/none/socket"), "grpc_uds: cannot listen on /none/socket"),
        (("--port", "0", "--set", f"grpc_uds={__file__}"), "no socket"),
        (("--set", "grpc_uds_mode=rw"), "grpc_uds_mode"),
        (("--port", "0", "--workers", "2", "--set", "grpc_uds=/none/socket"), "one worker"),
        (("--set", "max_connections=1000000000"), "ulimit"),
    ],
)
def test_flags_that_are_wrong_are_one_line(capsys, monkeypatch, arguments, says):
    """In this process: none of these comes so far as to serve."""
    assert says in _says(capsys, monkeypatch, *arguments)


def test_a_port_for_grpc_that_is_taken_is_one_line(capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"--grpc-port: cannot listen on 127.0.0.1:{port}" in _says(capsys, monkeypatch, "--grpc-port", port)
        monkeypatch.setattr("service.commands.serve.find_spec", lambda name: None)
        assert "tandem-decoder[grpc]" in _says(capsys, monkeypatch, "--grpc-port", port)


def test_a_temporary_folder_that_cannot_be_written_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/none")
    assert "TMPDIR" in _says(capsys, monkeypatch)


def _says(capsys, monkeypatch, *arguments: str) -> str:
    for name in Settings.model_fields:  # `--set` writes them; this puts them back
        monkeypatch.setenv(variable(name), "")
        monkeypatch.delenv(variable(name))
    monkeypatch.setattr(sys, "argv", ["tandem", "serve", "--port", "0", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("tandem: ")
    return line


def test_nobody_has_to_read_where_it_listens():
    listen = "socket.create_server(('127.0.0.1', 0))"
    code = f"import socket; from service.commands import serve; serve._say_where([{listen}])"
    with open("/dev/full", "w") as full:
        ended = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_keys_or_a_word_open_the_service_to_others(tmp_path):
    for arguments in (("--insecure",), ("--set", "api_keys=alice:alice-0123456789abcdef")):
        with serve(tmp_path / "log", "--host", "0.0.0.0", *arguments, model=MODEL) as server:
            assert server.url.startswith("http://0.0.0.0:")
