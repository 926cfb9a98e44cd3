"""Floods over WebSockets."""

from __future__ import annotations

import time
from contextlib import suppress

from benchmarks.attacks.attack import Attack, dial, together
from benchmarks.attacks.attack import flood as flooded
from benchmarks.attacks.http import SECONDS, UPGRADE
from benchmarks.harness import Service

BYTES = 17_000_000
CONTINUATION, TEXT, BINARY, PING, PONG = 0, 1, 2, 9, 10


def frame(opcode: int, *, final: bool = True, payload: bytes = b"") -> bytes:
    """A frame as clients send it, masked with zeros (RFC 6455, 5.2); of at most 125 bytes."""
    return bytes([opcode | 0x80 * final, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def flood(running: Service, piece: bytes, *, start: bytes = b"") -> str | None:
    """Sends frames over and over until the service closes, or `BYTES` are sent."""
    sent, end = 0, time.monotonic() + SECONDS
    with suppress(OSError), dial(running.port) as connection:
        connection.sendall(UPGRADE + b"\r\n")
        if not connection.recv(4096).startswith(b"HTTP/1.1 101"):
            return "the WebSocket was refused"
        connection.sendall(start)
        block = piece * (100_000 // len(piece))
        while sent < BYTES and time.monotonic() < end:
            sent += connection.send(block)
        time.sleep(2)
    return None


def large_messages(running: Service) -> str | None:
    """Messages of 60 MB in frames of 64 KiB, on 32 connections."""
    part = bytes([0, 0x80 | 126, 0xFF, 0xFF, 0, 0, 0, 0]) + b" " * 0xFFFF

    def send() -> int:
        return flooded(
            running.port, UPGRADE + b"\r\n" + frame(TEXT, final=False), part, seconds=SECONDS, most=60 * 10**6
        )

    together(32, send)
    return None


def continuations(running: Service) -> str | None:
    """Continuation frames without a byte."""
    return flood(running, frame(CONTINUATION, final=False), start=frame(TEXT, final=False))


def short_continuations(running: Service) -> str | None:
    """Continuation frames of one byte, of messages as long as may be."""
    pieces = [frame(CONTINUATION, final=False, payload=b" ")] * 60_000 + [frame(CONTINUATION)]
    return flood(running, frame(TEXT, final=False) + b"".join(pieces))


def pings(running: Service) -> str | None:
    """Pings, whose pongs nobody reads."""
    return flood(running, frame(PING, payload=b"x" * 8))


def empty_pings(running: Service) -> str | None:
    """Pings without a byte."""
    return flood(running, frame(PING))


def pongs(running: Service) -> str | None:
    """Pongs that nobody asked for."""
    return flood(running, frame(PONG))


def empty_messages(running: Service) -> str | None:
    """Messages without a byte."""
    return flood(running, frame(TEXT))


def refused_messages(running: Service) -> str | None:
    """Layers for streams that are not open, each of which is answered."""
    return flood(running, frame(BINARY, payload=bytes(8 + 5)))


ATTACKS = [
    Attack("WebSocket: empty continuation frames", continuations),
    Attack("WebSocket: continuation frames of one byte", short_continuations),
    Attack("WebSocket: messages of 60 MB, 32 connections", large_messages),
    Attack("WebSocket: pings", pings),
    Attack("WebSocket: empty pings", empty_pings),
    Attack("WebSocket: pongs", pongs),
    Attack("WebSocket: empty messages", empty_messages),
    Attack("WebSocket: layers of no stream", refused_messages),
]
