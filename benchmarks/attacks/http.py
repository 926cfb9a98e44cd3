"""What comes before the application: headers, trailers, chunks, connections that never end, pipelines."""

from __future__ import annotations

import gzip
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from benchmarks import harness
from benchmarks.attacks.attack import Attack, dial, flood, together, until_closed
from benchmarks.harness import Service

MODEL = harness.MODEL["id"]
POST = f"POST /v1/models/{MODEL}/decode HTTP/1.1\r\nHost: t\r\nContent-Type: {harness.B8}\r\n".encode()
GET = b"GET /v1/models HTTP/1.1\r\nHost: t\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
UPGRADE = (
    f"GET /v1/models/{MODEL}/stream HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    "Sec-WebSocket-Protocol: tandem.stream.v1\r\n"
).encode()
SECONDS = 8.0
MANY = 1030
"""Six more than the connections that are served by default."""
END_SECONDS = 30.0
"""By when they have to be closed: deadlines are two or three seconds, but what they asked for is answered first."""
BRIEF = {"header_timeout_seconds": 2, "keep_alive_seconds": 2, "body_timeout_seconds": 3}


def _shots(count: int) -> bytes:
    """Quiet shots, of 6 rounds of bb72."""
    return bytes(count * 54)


def _status(connection: socket.socket) -> int:
    """The status of an answer; 0 without one."""
    try:
        received = connection.recv(4096)
    except OSError:
        received = b""
    return int(received[9:12]) if received.startswith(b"HTTP/1.1 ") else 0


def _served(port: int) -> set[int]:
    """The ports of the clients whose connections the service at a port has.

    Those of clients that read nothing may not hear of their end: a reset that does not fit what they have room for is
    not believed.
    """
    served = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, state = line.split()[1:4]
        if int(local.rpartition(":")[2], 16) == port and state == "01":  # established
            served.add(int(remote.rpartition(":")[2], 16))
    return served


def trailers(count: int, running: Service) -> str | None:
    """Trailers without end."""
    together(count, lambda: flood(running.port, CHUNKED + b"0\r\n", b"a: " + b"b" * 65000 + b"\r\n", seconds=SECONDS))
    return None


def short_trailers(running: Service) -> str | None:
    """Trailers without end, of as many lines as fit."""
    together(16, lambda: flood(running.port, CHUNKED + b"0\r\n", b"a:b\r\n" * 10_000, seconds=SECONDS))
    return None


def tiny_chunks(running: Service) -> str | None:
    """Bodies in chunks of one byte."""
    together(64, lambda: flood(running.port, CHUNKED, b"1\r\n0\r\n" * 10_000, seconds=SECONDS))
    return None


def chunk_extensions(running: Service) -> str | None:
    """A chunk whose extension never ends."""
    together(16, lambda: flood(running.port, CHUNKED + b"1;a=", b"b" * 65536, seconds=SECONDS))
    return None


def long_header(running: Service) -> str | None:
    """A header of 70 kB, at once."""
    with dial(running.port) as connection:
        connection.sendall(GET + b"X-Long: " + b"a" * 70_000 + b"\r\n\r\n")
        status = _status(connection)
    return None if status in (0, 431) else f"a header of 70 kB was answered {status}"


def pipelines(running: Service) -> str | None:
    """Requests one behind the other, whose answers nobody reads."""
    request = b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n" * 2000
    together(32, lambda: flood(running.port, b"", request, seconds=SECONDS))
    return None


def _asked(running: Service) -> int:
    """The status of a small request on a connection of its own; 0 without an answer."""
    with dial(running.port) as connection:
        connection.sendall(GET + b"\r\n")
        return _status(connection)


def _hold(running: Service, *sent: bytes, small: bool = False) -> str | None:
    """Opens more connections than are served, says the same on each, and waits until all are closed.

    Meanwhile others have to be served: old idle connections make room. One that is told to come again later (503) does
    so once.
    """
    with ExitStack() as held:
        connections = []
        for _ in range(MANY):
            connections.append(held.enter_context(dial(running.port, small=small)))
            connections[-1].sendall(sent[0])
            time.sleep(0.002)  # so many requests at once take their time, however harmless they are
        for piece in sent[1:]:
            for connection in connections:
                with suppress(OSError):
                    connection.sendall(piece)
        time.sleep(1.5)
        others = 0
        for _ in range(20):
            status = _asked(running)
            if status == 503:
                time.sleep(1)  # as Retry-After says
                status = _asked(running)
            others += status == 200
            time.sleep(0.05)
        end = time.monotonic() + END_SECONDS
        opened = 0
        if small:  # reading would free them
            ports = {connection.getsockname()[1] for connection in connections}
            while (opened := len(ports & _served(running.port))) and time.monotonic() < end:
                time.sleep(0.2)
        else:
            for connection in connections:
                connection.settimeout(max(0.01, end - time.monotonic()))
                opened += not until_closed(connection)[1]
    said = [f"{opened} of {MANY} connections were still open after {END_SECONDS:g} s"] if opened else []
    said += [f"only {others} of 20 other requests were answered"] if others < 20 else []
    return "; ".join(said) or None


def bare_newlines(running: Service) -> str | None:
    """A request, and then an empty line that starts no other."""
    return _hold(running, GET + b"\r\n", b"\r\n")


def upgrades_with_bodies(running: Service) -> str | None:
    """WebSocket upgrades that say that a body follows."""
    return _hold(running, UPGRADE + b"Content-Length: 10\r\n\r\n")


def upgrades_with_many_headers(running: Service) -> str | None:
    """WebSocket upgrades with more headers than the library takes."""
    return _hold(running, UPGRADE + b"".join(b"X-%d: 1\r\n" % number for number in range(140)) + b"\r\n")


def upgrades_with_long_headers(running: Service) -> str | None:
    """WebSocket upgrades with a line that is longer than the library takes."""
    return _hold(running, UPGRADE + b"X-Long: " + b"a" * 10_000 + b"\r\n\r\n")


def bodies_that_do_not_come(running: Service) -> str | None:
    """Requests for what needs no body, with one that never comes."""
    return _hold(running, GET + b"Content-Length: 1000\r\n\r\n12")


def unread_answers(running: Service) -> str | None:
    """Answers of megabytes that nobody reads."""
    ask = f"GET /v1/models/{MODEL}/dem?rounds=40 HTTP/1.1\r\nHost: t\r\n\r\n".encode()
    with dial(running.port) as first:  # the circuit is made once
        first.sendall(ask)
        first.settimeout(60)
        if _status(first) != 200:
            return "the answer did not come"
    return _hold(running, ask * 4, small=True)


def encoded_bodies(running: Service) -> str | None:
    """Bodies with a Content-Encoding: decoded within the limits, or refused."""
    packed, wrong = gzip.compress(_shots(2)), []
    bomb = gzip.compress(bytes(2**30), compresslevel=9)
    cases = [
        (b"gzip", packed, (200, 415)),
        (b"br", packed, (415,)),
        (b"gzip, gzip", gzip.compress(packed), (415,)),
        (b"gzip", bomb, (413, 415)),
        (b"gzip", packed[:-9], (400, 415, 422)),
        (b"gzip", _shots(2), (400, 415, 422)),
    ]
    for coding, body, wanted in cases:
        with dial(running.port) as connection:
            connection.sendall(
                POST + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (coding, len(body)) + body
            )
            connection.settimeout(20)
            status = _status(connection)
        if status not in wanted:
            wrong.append(f"{coding.decode()} of {len(body)} bytes: {status}")
    return ", ".join(wrong) or None


def other_upgrades(running: Service) -> str | None:
    """A body behind `Upgrade: h2c`, which Java's client sends: an HTTP/1.1 server ignores the header."""
    smuggled = b"DELETE /v1/models/other HTTP/1.1\r\nHost: t\r\n\r\n"
    body = _shots(1)
    wrong = []
    for content, wanted in ((body, b"200"), (smuggled, b"4")):
        with dial(running.port) as connection:
            head = POST + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
            connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(content) + content)
            connection.settimeout(3)
            received, _ = until_closed(connection)
        if received.count(b"HTTP/1.1 ") != 1 or not received.startswith(b"HTTP/1.1 " + wanted):
            wrong.append(repr(received[:60]))
    return ", ".join(wrong) or None


def late_halves(running: Service) -> str | None:
    """Half of a second request behind one that takes long: the first is answered in full, and then comes a 408."""
    slow = 1000
    with dial(running.port) as connection:
        body = _shots(slow)
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body + GET[:20])
        connection.settimeout(30)
        received, _ = until_closed(connection)
    head, _, rest = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        return f"the first request was answered {head[:40]!r}"
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return (
        None
        if rest[length : length + 12] in (b"HTTP/1.1 408", b"")
        else f"after the answer came {rest[length:][:40]!r}"
    )


def left_pipelines(running: Service) -> str | None:
    """Clients that leave while requests wait behind another: no error of the service's."""
    for _ in range(20):
        with dial(running.port) as connection:
            body = _shots(500)
            request = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
            connection.sendall(request * 3)
            time.sleep(0.05)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    time.sleep(2)
    log = running.log.read_text()
    with dial(running.port) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        metrics, _ = until_closed(connection)
    counted = [line for line in metrics.splitlines() if b'reason="internal' in line]
    tracebacks = log.count("Traceback")
    return f"{tracebacks} tracebacks, {counted}" if tracebacks or counted else None


def _repeated(running: Service, request: bytes, wanted: tuple[int, ...]) -> str | None:
    """Sends a request again and again from 16 threads, each on a connection of its own: its statuses."""

    def send() -> int:
        wrong, end = 0, time.monotonic() + SECONDS
        while time.monotonic() < end:
            with dial(running.port) as connection, suppress(OSError):
                connection.sendall(request)
                status = _status(connection)
                wrong = status if status not in (*wanted, 503) else wrong
        return wrong

    wrong = {status for status in together(16, send) if status}
    return f"answers: {wrong}" if wrong else None


def many_headers(running: Service) -> str | None:
    """As many headers as fit."""
    return _repeated(running, GET + b"a:b\r\n" * 13_000 + b"\r\n", (431, 0))


def long_targets(running: Service) -> str | None:
    """A path as long as fits."""
    return _repeated(running, b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: t\r\n\r\n", (414, 431, 0))


def many_parameters(running: Service) -> str | None:
    """A query with as many parameters as fit, none of which there is."""
    query = b"&".join(b"%x=" % number for number in range(13_000))
    head = POST.replace(b"/decode", b"/decode?" + query)
    return _repeated(running, head + b"Content-Length: 0\r\n\r\n", (414, 422, 431, 0))


def folded_headers(running: Service) -> str | None:
    """Headers that go on on the next line, which HTTP/1.1 forbids (RFC 9112, 5.2)."""
    return _repeated(running, GET + b"X: a\r\n" + b" b\r\n" * 1000 + b"\r\n", (400, 0))


def bodies_that_wait(running: Service) -> str | None:
    """Bodies whose clients wait to be told to go on, and then do not."""
    return _hold(running, POST + b"Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n")


def slow_pipelines(running: Service) -> str | None:
    """Many requests behind one that takes long, on as many connections as requests may be at work."""
    body = np.random.default_rng(0).integers(0, 256, 54 * 300, dtype=np.uint8).tobytes()
    slow = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with ExitStack() as held:
        for _ in range(250):
            connection = held.enter_context(dial(running.port))
            connection.sendall(slow + b"GET / HTTP/1.1\r\n\r\n" * 200)
            time.sleep(0.005)
        time.sleep(SECONDS)
    return None


ATTACKS = [
    Attack("trailers without end, one connection", lambda running: trailers(1, running)),
    Attack("trailers without end, 16 connections", lambda running: trailers(16, running)),
    Attack("trailers of short lines, 16 connections", short_trailers),
    Attack("chunks of one byte, 64 connections", tiny_chunks),
    Attack("chunk extensions without end, 16 connections", chunk_extensions),
    Attack("a header of 70 kB at once", long_header),
    Attack("13,000 headers, 16 connections", many_headers),
    Attack("a path of 60 kB, 16 connections", long_targets),
    Attack("a query of 20,000 parameters, 16 connections", many_parameters),
    Attack("folded headers", folded_headers),
    Attack("pipelines that nobody reads, 32 connections", pipelines),
    Attack("pipelines behind slow requests, 250 connections", slow_pipelines, growth_mib=512),
    Attack("1,030 connections with a bare newline", bare_newlines, BRIEF),
    Attack("1,030 upgrades with a body", upgrades_with_bodies, BRIEF),
    Attack("1,030 upgrades with 140 headers", upgrades_with_many_headers, BRIEF),
    Attack("1,030 upgrades with a long header", upgrades_with_long_headers, BRIEF),
    Attack("1,030 bodies that never come", bodies_that_do_not_come, BRIEF),
    Attack("1,030 bodies that wait for 100 Continue", bodies_that_wait, BRIEF),
    Attack("1,030 answers that nobody reads", unread_answers, BRIEF | {"write_timeout_seconds": 3}),
    Attack("bodies with a Content-Encoding", encoded_bodies),
    Attack("Upgrade: h2c", other_upgrades),
    Attack("half a request behind a slow one", late_halves, {"header_timeout_seconds": 0.2}),
    Attack("hang-up with requests in a pipeline", left_pipelines),
]
