"""The unmodified `tritonclient.grpc`, and messages by hand, against the server of `tandem serve`."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2

from service.app import create_app
from service.rpc.calls import PROBLEM
from service.rpc.server import SPARE_CALLS, RpcServer
from service.settings import ModelSettings, Settings
from simulation.bits import pack_bits
from tests.helpers import PATIENCE_SECONDS, eventually
from tests.service.conftest import EchoDecoder
from tests.service.processes.conftest import running_server

KEY = "alice-0123456789abcdef"
NUM_DETECTORS = 72  # bb72, one round


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def echo() -> EchoDecoder:
    return EchoDecoder()


@pytest.fixture(scope="module")
def served(echo) -> Iterator[tuple[int, int]]:
    """The ports for HTTP and for gRPC."""
    grpc_port = free_port()
    bounds: dict[str, Any] = {"max_shots_per_request": 50, "max_queued_shots": 60}
    with running_server(echo.make, grpc_port=grpc_port, drain_seconds=0, **bounds) as (port, _):
        yield port, grpc_port


@pytest.fixture
def client(served) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{served[1]}") as client:
        yield client


@pytest.fixture
def shots(shots_of):
    return shots_of(5, num_detectors=NUM_DETECTORS)


def tensor(shots, form: str = "b8") -> triton.InferInput:
    values = {"b8": pack_bits(shots), "BOOL": shots, "UINT8": shots.astype(np.uint8)}[form]
    name, datatype = ("detection_events_b8", "UINT8") if form == "b8" else ("detection_events", form)
    return triton.InferInput(name, list(values.shape), datatype).set_data_from_numpy(values)


@pytest.mark.parametrize("form", ["b8", "BOOL", "UINT8"])
def test_answers_are_those_of_the_decoder(client, shots, form):
    outputs = [triton.InferRequestedOutput("predictions_b8"), triton.InferRequestedOutput("predictions")]
    result = client.infer("m", [tensor(shots, form)], outputs=outputs, model_version="1", request_id="today")
    np.testing.assert_array_equal(result.as_numpy("predictions"), shots[:, :12])
    np.testing.assert_array_equal(result.as_numpy("predictions_b8"), pack_bits(shots[:, :12]))
    answer = result.get_response()
    assert (answer.id, answer.model_name, answer.model_version) == ("today", "m", "1")
    assert [output.name for output in answer.outputs] == ["predictions_b8", "predictions"]


@pytest.mark.anyio
async def test_the_asyncio_client(served, shots):
    async with triton_aio.InferenceServerClient(f"127.0.0.1:{served[1]}") as client:
        assert await client.is_server_ready()
        result = await client.infer("m", [tensor(shots)], parameters={"basis": "Z", "rounds": 1})
        np.testing.assert_array_equal(result.as_numpy("predictions"), shots[:, :12])


def test_what_there_is(client, shots):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m")
    assert client.get_server_metadata(as_json=True)["name"] == "tandem"
    metadata = client.get_model_metadata("m", "1")
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in (*metadata.inputs, *metadata.outputs)] == [
        ("detection_events", "BOOL", [-1, 72]),
        ("predictions", "BOOL", [-1, 12]),
    ]
    config = client.get_model_config("m").config
    assert (config.max_batch_size, config.parameters["rounds"].string_value) == (50, "1")
    assert [(model.name, model.state) for model in client.get_model_repository_index().models] == [("m", "READY")]
    before = _counted(client)
    client.infer("m", [tensor(shots)])
    assert _counted(client) - before == len(shots)


def _counted(client) -> int:
    (model,) = client.get_inference_statistics("m").model_stats
    assert [each.name for each in client.get_inference_statistics().model_stats] == ["m"]
    return model.inference_count


Method = Any


@pytest.fixture
def infer(served) -> Iterator[Method]:
    """ModelInfer without a client around it."""
    with grpc.insecure_channel(f"127.0.0.1:{served[1]}") as channel:
        yield method(channel)


def method(channel: grpc.Channel) -> Method:
    return channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        service_pb2.ModelInferRequest.SerializeToString,
        service_pb2.ModelInferResponse.FromString,
    )


def message(shots, *, outputs: tuple[str, ...] = (), values: Any = None, **changes: Any) -> Any:
    """A request; with `values` they are listed in `contents`."""
    parameters = changes.pop("parameters", {})
    made = service_pb2.ModelInferRequest(**{"model_name": "m"} | changes)
    for name, value in parameters.items():
        kind = {int: "int64_param", float: "double_param", str: "string_param", bool: "bool_param"}[type(value)]
        setattr(made.parameters[name], kind, value)
    for name in outputs:
        made.outputs.add(name=name)
    if values is None:
        made.inputs.add(name="detection_events_b8", datatype="UINT8", shape=[len(shots), 9])
        made.raw_input_contents.append(pack_bits(shots).tobytes())
    else:
        contents = service_pb2.InferTensorContents(**values)
        made.inputs.add(name="detection_events", datatype="BOOL", shape=shots.shape, contents=contents)
    return made


def test_listed_values(infer, shots):
    answer = infer(message(shots, values={"bool_contents": shots.ravel().tolist()}))
    assert answer.raw_output_contents[0] == shots[:, :12].tobytes()
    (output,) = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("predictions", "BOOL", [5, 12])


def fails(call: Method, request: Any, **options: object) -> tuple[str, str, dict[str, str]]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, **options)
    return caught.value.code().name, caught.value.details(), dict(caught.value.trailing_metadata())


@pytest.mark.parametrize(
    ("status", "kind", "says", "changes"),
    [
        ("NOT_FOUND", "unknown-model", "there is no model 'n'", {"model_name": "n"}),
        ("NOT_FOUND", "unknown-version", "no version '2'", {"model_version": "2"}),
        ("INVALID_ARGUMENT", "invalid-parameters", "round", {"parameters": {"round": 1}}),
        ("INVALID_ARGUMENT", "invalid-parameters", "p:", {"parameters": {"p": "0.1"}}),
        ("INVALID_ARGUMENT", "invalid-parameters", "gives no confidence", {"outputs": ("confidence",)}),
        ("INVALID_ARGUMENT", "invalid-shots", "outputs", {"outputs": ("prediction",)}),
        ("INVALID_ARGUMENT", "invalid-shots", "once", {"values": {}}),
        ("INVALID_ARGUMENT", "invalid-shots", "uint_contents", {"values": {"uint_contents": [0] * 360}}),
        ("INVALID_ARGUMENT", "invalid-shots", "at most", {"values": {"bool_contents": [False] * (2**20 + 1)}}),
        ("INVALID_ARGUMENT", "too-many-shots", "at most 50", {"count": 51}),
        ("RESOURCE_EXHAUSTED", None, "larger than max", {"count": 2**19}),
        ("INTERNAL", "decoder-failed", "urn:uuid:", {"loud": True}),
    ],
)
def test_errors(infer, shots, status, kind, says, changes):
    options = dict(changes)
    sent = np.resize(shots, (options.pop("count", len(shots)), NUM_DETECTORS))
    sent[:, -1] = options.pop("loud", False)  # which this decoder cannot bear
    code, detail, trailing = fails(infer, message(sent, **options))
    assert (code, trailing.get(PROBLEM)) == (status, kind), detail
    assert says in detail


@pytest.fixture
def held(served, infer, echo, shots) -> Iterator[Method]:
    """ModelInfer while a batch is at work; in the end it is answered."""
    echo.hold()
    first = infer.future(message(shots))
    eventually(lambda: echo.batches)
    yield infer
    echo.gate.set()
    assert first.result().raw_output_contents[0] == shots[:, :12].tobytes()


def waiting(port: int, count: int) -> bool:
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_SECONDS).text
    return f'tandem_queued_shots{{model="m"}} {count}.0' in text


def test_what_is_cancelled_or_late_is_not_decoded(served, held, echo, shots_of):
    port, _ = served
    shots = shots_of(20, num_detectors=NUM_DETECTORS)
    cancelled = held.future(message(shots))
    eventually(lambda: waiting(port, 20))
    cancelled.cancel()
    eventually(lambda: waiting(port, 0))
    assert fails(held, message(shots), timeout=0.2)[0] == "DEADLINE_EXCEEDED"
    eventually(lambda: waiting(port, 0))
    code, _, trailing = fails(held, message(shots, parameters={"timeout_ms": 50}))
    assert (code, trailing[PROBLEM]) == ("DEADLINE_EXCEEDED", "deadline-exceeded")
    assert echo.batches == [5]
    assert 'reason="disconnected"' in httpx.get(f"http://127.0.0.1:{port}/metrics").text


def test_a_full_queue(served, held, shots_of):
    shots = shots_of(40, num_detectors=NUM_DETECTORS)
    queued = held.future(message(shots))
    eventually(lambda: waiting(served[0], 40))
    code, _, trailing = fails(held, message(shots))
    assert (code, trailing[PROBLEM]) == ("UNAVAILABLE", "busy")
    assert int(trailing["retry-after"]) > 0
    queued.cancel()


def test_streams_answer_in_order(client, shots_of):
    shots = shots_of(3, num_detectors=NUM_DETECTORS)
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(30):
        model = "m" if number % 7 else "n"
        client.async_stream_infer(model, [tensor(np.roll(shots, number, axis=0))], request_id=str(number))
    for number in range(30):
        result, error = answers.get(timeout=PATIENCE_SECONDS)
        if number % 7:
            assert result.get_response().id == str(number)
            np.testing.assert_array_equal(result.as_numpy("predictions"), np.roll(shots, number, axis=0)[:, :12])
        else:
            assert "there is no model 'n'" in str(error)
    client.stop_stream()


PATHS = {name: f"/inference.GRPCInferenceService/{name}" for name in ("ServerLive", "ModelInfer", "ModelStreamInfer")}
QUICK: dict[str, Any] = {
    "body_timeout_seconds": 0.3,
    "write_timeout_seconds": 0.3,
    "stream_idle_seconds": 0.3,
    "drain_seconds": 0,
}
ONE_PLACE: dict[str, Any] = {"max_requests_in_flight": 1}


@pytest.fixture(scope="module")
def quick(echo) -> Iterator[int]:
    """The port for gRPC of a service with one place for calls, and little patience."""
    port = free_port()
    with running_server(echo.make, grpc_port=port, **QUICK, **ONE_PLACE):
        yield port


@pytest.mark.parametrize("name", ["ModelInfer", "ModelStreamInfer"])
def test_calls_without_a_message_give_their_place_back(quick, shots, name):
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait(PATIENCE_SECONDS)
        yield from ()

    with grpc.insecure_channel(f"127.0.0.1:{quick}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            list(channel.stream_stream(PATHS[name])(nothing()))
        over.set()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert method(channel)(message(shots)).raw_output_contents


def test_calls_whose_answers_nobody_reads_give_their_place_back(quick, shots):
    """A client that is ready for no byte (RFC 9113, 6.9.2) once kept its place for ever."""
    content = message(shots).SerializeToString()
    headers = {":method": "POST", ":path": PATHS["ModelInfer"], ":scheme": "http", "content-type": "application/grpc"}
    fields = b"".join(b"\0%c%b%c%b" % (len(k), k.encode(), len(v), v.encode()) for k, v in headers.items())

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    with socket.create_connection(("127.0.0.1", quick), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, struct.pack(">HI", 4, 0)))
        connection.sendall(frame(1, 4, 1, fields) + frame(0, 1, 1, struct.pack(">BI", 0, len(content)) + content))
        received = b""
        while b"\0\0\4\3\0\0\0\0\1" not in received:  # RST_STREAM of the call
            received += connection.recv(4096)
        with grpc.insecure_channel(f"127.0.0.1:{quick}") as channel:
            assert method(channel)(message(shots)).raw_output_contents


def test_probes_are_answered_when_no_place_is_free(served, shots):
    port = free_port()
    echo = EchoDecoder()
    with (
        running_server(echo.make, grpc_port=port, **ONE_PLACE, drain_seconds=0),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as other,
    ):
        echo.hold()
        first = method(channel).future(message(shots))
        eventually(lambda: echo.batches)
        code, detail, trailing = fails(method(other), message(shots))
        assert (code, trailing[PROBLEM]) == ("UNAVAILABLE", "busy"), detail
        assert other.unary_unary(PATHS["ServerLive"])(b"") == b"\x08\x01"
        echo.gate.set()
        assert first.result().raw_output_contents


def test_connections_beyond_those_are_closed(quick):
    with ExitStack() as held:

        def accepted() -> bool:
            connection = held.enter_context(socket.create_connection(("127.0.0.1", quick), timeout=PATIENCE_SECONDS))
            with suppress(ConnectionError):
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5))
                return connection.recv(9)[3:4] == b"\4"  # its settings
            return False

        eventually(lambda: all(accepted() for _ in range(1 + SPARE_CALLS)) or held.close())
        assert not accepted()


def test_what_is_no_message_is_said_to_be_none(infer, served, caplog):
    with grpc.insecure_channel(f"127.0.0.1:{served[1]}") as channel:
        code, detail, trailing = fails(channel.unary_unary(PATHS["ModelInfer"]), b"\xff" * 9)
        assert (code, trailing[PROBLEM]) == ("INVALID_ARGUMENT", "invalid-parameters"), detail
        [answer] = channel.stream_stream(PATHS["ModelStreamInfer"])(iter([b"\xff" * 9]))
        assert "no message of the Open Inference Protocol" in answer.decode()
    assert "Traceback" not in caplog.text


def test_keys_and_request_ids(echo, shots, caplog):
    caplog.set_level(logging.INFO, "service.access")
    port = free_port()
    with (
        running_server(echo.make, grpc_port=port, api_keys=f"alice:{KEY}"),
        triton.InferenceServerClient(f"127.0.0.1:{port}") as client,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        infer = method(channel)
        assert client.is_server_live()
        assert client.is_server_ready()
        for wrong in ([], [("x-api-key", "bob-0123456789abcdef")]):
            code, _, trailing = fails(infer, message(shots), metadata=wrong)
            assert (code, trailing[PROBLEM]) == ("UNAUTHENTICATED", "unauthorized")
        for right in ([("authorization", f"Bearer {KEY}")], [("x-api-key", KEY), ("x-request-id", "run-7")]):
            assert infer(message(shots), metadata=right).raw_output_contents
    calls = [
        record.fields for record in caplog.records if record.name == "service.access" and "method" in record.fields
    ]
    calls = [call for call in calls if call["method"] == "ModelInfer"]
    assert [(call["key"], call["shots"]) for call in calls] == [(None, 0), (None, 0), ("alice", 5), ("alice", 5)]
    assert calls[-1]["request_id"] == "run-7"


def test_calls_at_work_are_answered_in_the_end(echo, shots):
    port = free_port()
    with (
        running_server(echo.make, grpc_port=port) as (_, server),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        echo.hold()
        asked = method(channel).future(message(shots))
        eventually(lambda: echo.batches)
        server.stop()
        eventually(lambda: not server.servers[0].is_serving())
        echo.gate.set()
        assert asked.result().raw_output_contents[0] == shots[:, :12].tobytes()


def test_a_socket_beside_the_port_has_its_permissions_and_goes_at_the_end(echo, shots, tmp_path):
    path, port = tmp_path / "socket", free_port()
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(os.fspath(path))  # its file stays
    keys = {"authorization": f"Bearer {KEY}"}
    chosen: dict[str, Any] = {"grpc_port": port, "grpc_uds": path, "grpc_uds_mode": "620", "drain_seconds": 0}
    with running_server(echo.make, api_keys=f"alice:{KEY}", **chosen):
        assert stat.S_IMODE(path.lstat().st_mode) == 0o620
        assert os.listdir(tmp_path) == ["socket"]
        for url in (f"unix:{path}", f"127.0.0.1:{port}"):
            with triton.InferenceServerClient(url) as client:
                with pytest.raises(triton.InferenceServerException, match="UNAUTHENTICATED"):
                    client.infer("m", [tensor(shots)])
                result = client.infer("m", [tensor(shots)], headers=keys)
                np.testing.assert_array_equal(result.as_numpy("predictions"), shots[:, :12])
    assert os.listdir(tmp_path) == []


def test_a_socket_of_somebody_else_stays_theirs(echo, tmp_path):
    path = tmp_path / "socket"
    settings = Settings(models=(ModelSettings(id="m", code="bb72", decoder="bposd", rounds=1, own_process=False),))

    async def listen() -> None:
        rpc = RpcServer(create_app(settings, make_decoder=echo.make), settings)
        try:
            rpc.listen_on_path(path, mode=0o600)
        finally:
            await rpc.stop(0)

    with socket.socket(socket.AF_UNIX) as theirs, socket.socket(socket.AF_UNIX) as caller:
        theirs.bind(os.fspath(path))
        theirs.listen()
        with pytest.raises(ValueError, match="already in use"):
            asyncio.run(listen())
        caller.connect(os.fspath(path))
