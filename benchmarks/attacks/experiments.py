"""Large experiments: circuits asked for, circuits sent, errors told, and streams that are left."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

import httpx
from websockets import Subprotocol
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from benchmarks import harness
from benchmarks.attacks.attack import Attack
from benchmarks.attacks.work import B8, BPOSD, ask, leave
from benchmarks.harness import Service

SECONDS = 8.0
NETWORK = {"id": "network", "code": "bb144"}
KEYS = [f"key{number:013d}" for number in range(12)]
WITH_KEYS = {"api_keys": ",".join(f"n{number}:{key}" for number, key in enumerate(KEYS))}
MANY_LAYERS = "REPEAT 9000 {\nerror(0.1) D0 D21 L0\ndetector(0, 0, 0) D0\nshift_detectors(0, 0, 1) 22\n}\nerror(0.1) D0"
"""198,000 detectors in 9,000 layers."""


def _over_and_over(running: Service, *asked: tuple[str, str]) -> Counter[int]:
    """Asks for the same again and again, from four threads for each: the statuses."""
    end = time.monotonic() + SECONDS
    said: Counter[int] = Counter()

    def work(method: str, path: str) -> None:
        number = 0
        while time.monotonic() < end:
            number += 1
            said[ask(running, method, path.replace("P", f"0.00{number:03d}"), seconds=60)] += 1

    with ThreadPoolExecutor(4 * len(asked)) as pool:
        for done in [pool.submit(work, *one) for one in asked * 4]:
            done.result()
    return said


def large_circuits(running: Service) -> str | None:
    """Circuits, error models, sizes and samples of bb144 at 40 rounds, each time of another strength of noise."""
    model = "/v1/models/network"
    query = "rounds=40&p=P"
    said = _over_and_over(
        running,
        ("GET", f"{model}/circuit?{query}"),
        ("GET", f"{model}/dem?{query}"),
        ("GET", f"{model}?{query}"),
        ("POST", f"{model}/sample?rounds=40&p=0.49&shots=100"),
    )
    return None if set(said) <= {200, 503} else f"answers: {dict(said)}"


def large_networks(running: Service) -> str | None:
    """New experiments of a network at 40 rounds, which are made beside the event loop."""
    paths = [f"/v1/models/network/decode?rounds=40&p=0.00{i}1" for i in range(1, 7)]
    with ThreadPoolExecutor(len(paths)) as pool:
        said = Counter(pool.map(lambda path: _decode(running, path, bytes(18 * 40 * 2)), paths))
    return None if set(said) <= {200, 422, 503} else f"answers: {dict(said)}"


def _decode(running: Service, path: str, content: bytes) -> int:
    return ask(running, "POST", path, content=content, headers=B8, seconds=150)


def many_errors(running: Service) -> str | None:
    """The errors of as many shots as a request may have, from 64 clients at once."""
    path = "/v1/models/slow/decode?errors=true"
    with ThreadPoolExecutor(64) as pool:
        said = Counter(pool.map(lambda count: _decode(running, path, bytes(54 * count)), [10_000] * 32 + [1_000] * 32))
    return None if set(said) <= {200, 413, 503} else f"answers: {dict(said)}"


def _send(running: Service, key: str, text: str, kind: str = "dem") -> httpx.Response:
    headers = B8 | {"x-api-key": key}
    with httpx.Client(trust_env=False, timeout=150) as client:
        return client.post(f"{running.url}/v1/experiments?kind={kind}", content=text, headers=headers)


def many_experiments(running: Service) -> str | None:
    """As many experiments as keys may have, as large as they may be, and a list of them over and over."""
    texts = [MANY_LAYERS.replace("0.1", f"0.0{number:02d}1") for number in range(17)]
    with ThreadPoolExecutor(6) as pool:
        sent = list(pool.map(lambda pair: _send(running, *pair), [(key, text) for text in texts[:3] for key in KEYS]))
        sent += list(pool.map(lambda text: _send(running, KEYS[0], text), texts[3:]))
        said = Counter(one.status_code for one in sent)

        def list_them(key: str) -> int:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                status = ask(running, "GET", "/v1/experiments", headers={"x-api-key": key}, seconds=60)
            return status

        listed = Counter(pool.map(list_them, KEYS[:6]))
    if not set(said) <= {201, 409, 422, 503} or set(listed) != {200}:
        return f"answers: {dict(said)}, lists: {dict(listed)}"
    return None


def endless_reading(running: Service) -> str | None:
    """Experiments that take long to be read, whose clients leave: others go on, and another one is read in the end."""
    for number in range(12):
        text = f"error(0.0{number:02d}1) " + " ".join(f"D{i}" for i in range(100_000)) + "\n"
        body = (text + "error(0.1) D0 D1\n" * 500_000).encode()
        leave(running, "/v1/experiments?kind=dem", body)
    late = []
    began = time.monotonic()
    if (status := _decode(running, f"/v1/models/{harness.MODEL['id']}/decode", bytes(54))) != 200:
        late.append(f"a shot: {status}")
    if (seconds := time.monotonic() - began) > 5:
        late.append(f"a shot took {seconds:.1f} s")
    end = time.monotonic() + 120
    while (answer := _send(running, "", "error(0.1) D0 L0")).status_code not in (200, 201):
        if time.monotonic() > end:
            late.append(f"another experiment: {answer.status_code}")
            break
        time.sleep(1)
    return "; ".join(late) or None


async def _open(port: int, members: Sequence[dict[str, object]], layer: bytes) -> str | None:
    """Opens streams on many connections, sends one layer of each, and leaves them."""
    url = f"ws://127.0.0.1:{port}/v1/models/slow/stream"
    async with AsyncExitStack() as held:
        for _ in range(64):
            try:
                socket = await held.enter_async_context(
                    connect(url, subprotocols=[Subprotocol("tandem.stream.v1")], compression=None, proxy=None)
                )
                for stream, one in enumerate(members):
                    await socket.send(json.dumps({"action": "open", "stream": stream} | one))
                    await socket.send(stream.to_bytes(4, "little") + bytes(4) + layer)
            except (WebSocketException, OSError):
                pass  # it is refused, which is right
        await asyncio.sleep(SECONDS)
    return None


def left_streams(running: Service) -> str | None:
    """Streams of an experiment with as large layers as fit, opened and left."""
    text = "\n".join(f"error(0.1) D{i}\ndetector(0, 0, 0) D{i}" for i in range(60_000)) + "\ndetector(0, 0, 1) D60001"
    sent = _send(running, "", text)
    if sent.status_code != 201:
        return f"the experiment was answered {sent.status_code}"
    members: list[dict[str, object]] = [{"experiment": sent.json()["id"]}] * 64
    return asyncio.run(_open(running.port, members, bytes(60_000 // 8)))


ATTACKS = [
    Attack("circuits of bb144 at 40 rounds", large_circuits, models=(harness.MODEL, NETWORK), growth_mib=1000),
    Attack(
        "six experiments of a network at 40 rounds", large_networks, models=(harness.MODEL, NETWORK), growth_mib=1500
    ),
    Attack("errors of 10,000 shots, 64 at once", many_errors, models=(harness.MODEL, BPOSD), growth_mib=1000),
    Attack("experiments with 9,000 layers, of 12 keys", many_experiments, WITH_KEYS, growth_mib=1000),
    Attack("experiments that take long to be read", endless_reading, models=(harness.MODEL, BPOSD), growth_mib=1500),
    Attack("streams with large layers, opened and left", left_streams, models=(harness.MODEL, BPOSD), growth_mib=1000),
]
