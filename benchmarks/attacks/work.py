"""What reaches the application: much work, large bodies, wrong files, keys that are none, pages of other sites."""

from __future__ import annotations

import json
import struct
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np

from benchmarks import harness
from benchmarks.attacks.attack import WAIT_SECONDS, Attack, dial, together
from benchmarks.attacks.http import GET, MODEL, POST
from benchmarks.harness import Service
from decoder.neural.weights import shipped_weights

KEY = "root-0123456789abcdef"
AS_ROOT = {"x-api-key": KEY}
WITH_KEYS = {"api_keys": f"root:admin:{KEY}", "model_dir": tempfile.gettempdir()}
BPOSD = {"id": "slow", "code": "bb72", "decoder": "bposd"}
LARGE = {"id": "large", "code": "bb144", "decoder": "bposd"}
QUICK_SECONDS = 5.0
"""How long what has nothing to do with the attack may take."""
B8 = {"content-type": harness.B8}
JSON = POST.replace(harness.B8.encode(), b"application/json")


def ask(running: Service, method: str, path: str, *, seconds: float = WAIT_SECONDS, **options: object) -> int:
    """The status of an answer, whatever the environment's proxies; 0 if there is none in time."""
    with httpx.Client(trust_env=False, timeout=seconds) as client:
        try:
            return client.request(method, f"{running.url}{path}", **options).status_code  # type: ignore[arg-type]
        except httpx.HTTPError:
            return 0


def leave(running: Service, path: str, body: bytes) -> None:
    """Sends a request, and hangs up when the service has begun with it."""
    with dial(running.port) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {harness.B8}\r\nContent-Length: {len(body)}"
        connection.sendall(f"{head}\r\n\r\n".encode() + body)
        time.sleep(1)


def one_model(running: Service) -> str | None:
    """Hard shots and a new experiment for one model, whose clients leave: all others go on."""
    size = 72 * 40 // 8  # bytes of a shot at 40 rounds
    dense = np.random.default_rng(0).integers(0, 256, (64, size), dtype=np.uint8).tobytes()
    leave(running, "/v1/models/slow/decode?rounds=40", dense)
    leave(running, "/v1/models/slow/decode?rounds=40&p=0.0123", bytes(size))
    late = []
    for method, path in (
        ("GET", f"/v1/models/{MODEL}/circuit?rounds=7"),
        ("POST", f"/v1/models/{MODEL}/sample?rounds=8"),
        ("GET", f"/v1/models/{MODEL}?rounds=9"),
        ("GET", "/v1/models/slow/circuit?rounds=5"),
    ):
        began = time.monotonic()
        status = ask(running, method, path, seconds=30)
        if (seconds := time.monotonic() - began) > QUICK_SECONDS or status != 200:
            late.append(f"{path}: {status} after {seconds:.1f} s")
    if (status := ask(running, "POST", f"/v1/models/{MODEL}/decode?rounds=4", content=bytes(36), headers=B8)) != 200:
        late.append(f"a new experiment of {MODEL}: {status}")
    return "; ".join(late) or None


def many_experiments(running: Service) -> str | None:
    """Nine strengths of noise at 40 rounds, whose decoders are large."""
    said = Counter(
        ask(
            running,
            "POST",
            f"/v1/models/large/decode?rounds=40&p=0.00{i}1",
            seconds=150,
            content=bytes(720),
            headers=B8,
        )
        for i in range(1, 10)
    )
    return None if set(said) <= {200, 503} else f"answers: {dict(said)}"


def lists_in_json(count: int, running: Service) -> str | None:
    """JSON of 16 MB that is nothing but lists."""
    body = b'{"shots":[' + b"[]," * 5_500_000 + b"[]]}"
    said = Counter(together(count, lambda: _post(running, JSON, body)))
    return None if set(said) <= {413, 422, 503} else f"answers: {dict(said)}"


def numbers_in_json(running: Service) -> str | None:
    """JSON of 16 MB that is one list of numbers."""
    body = b'{"shots":[[' + b"0," * 8_000_000 + b"0]]}"
    said = Counter(together(24, lambda: _post(running, JSON, body)))
    return None if set(said) <= {413, 422, 503} else f"answers: {dict(said)}"


def strange_json(running: Service) -> str | None:
    """JSON that is deep, has endless numbers, or none, half characters, or a name twice: each is refused."""
    shot = b"[" + b"0," * 431 + b"%s]"
    bodies = {
        "depth": b'{"shots":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        "depth of 1 MB": b'{"a":' * 200_000,
        "digits": b'{"shots":[' + shot % (b"1" * 50_000) + b"]}",
        "a million digits": b'{"shots":[' + shot % (b"1" * 10**6) + b"]}",
        "NaN": b'{"shots":[' + shot % b"NaN" + b"]}",
        "infinity": b'{"shots":[' + shot % b"1e999999999" + b"]}",
        "half a character": b'{"\\ud800":1}',
        "no UTF-8": b'{"shots\xff":1}',
        "another name": '{"\u0455hots":[]}'.encode(),  # a Cyrillic letter
        "twice": b'{"shots":[' + shot % b"0" + b'],"shots":[' + shot % b"1" + b"]}",
        "a megabyte of names": b"{" + b",".join(b'"%x":0' % number for number in range(100_000)) + b"}",
    }
    said = {name: _post(running, JSON, body) for name, body in bodies.items()}
    wrong = {name: status for name, status in said.items() if not 400 <= status < 500}
    return f"answers: {wrong}" if wrong else None


def many_bodies(running: Service) -> str | None:
    """256 bodies as long as each may be, whose last byte does not come."""
    body = bytes(2**24 - 1)
    with ExitStack() as held, ThreadPoolExecutor(64) as pool:

        def send() -> None:
            connection = held.enter_context(dial(running.port))
            with suppress(OSError):
                connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % (len(body) + 1) + body)

        for sent in [pool.submit(send) for _ in range(256)]:
            sent.result()
        time.sleep(1)
    return None


def _post(running: Service, head: bytes, body: bytes) -> int:
    """The status of an answer; 0 without one."""
    with dial(running.port, timeout=150) as connection:
        with suppress(OSError):
            connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        with suppress(OSError):
            received = connection.recv(4096)
            return int(received[9:12]) if received.startswith(b"HTTP/1.1 ") else 0
    return 0


def weights_that_ask_for_much(running: Service) -> str | None:
    """A file of 2 MB whose header asks for a network of gigabytes, or for iterations without end."""
    data = shipped_weights("bb72").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    wrong = []
    for change in ({"round_blocks": 10**6}, {"bp_iterations": 10**8}):
        header = json.loads(data[8 : 8 + length])
        ours = json.loads(header["__metadata__"]["tandem"])
        ours["config"] |= change
        header["__metadata__"]["tandem"] = json.dumps(ours)
        text = json.dumps(header).encode()
        with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
            file.write(struct.pack("<Q", len(text)) + text + data[8 + length :])
            file.flush()
            model = {"code": "bb72", "weights": Path(file.name).name}
            status = ask(running, "PUT", "/v1/models/new", json=model, headers=AS_ROOT, seconds=60)
        if status != 422:
            wrong.append(f"{change}: {status}")
    return ", ".join(wrong) or None


def removals_at_once(running: Service) -> str | None:
    """All models removed at the same moment, by several workers: one stays, and is the same for all."""
    names = [model["id"] for model in MODELS]
    with ThreadPoolExecutor(len(names)) as pool:
        said = list(pool.map(lambda name: ask(running, "DELETE", f"/v1/models/{name}", headers=AS_ROOT), names))
    time.sleep(5)
    seen = set()
    for _ in range(20):
        with httpx.Client(trust_env=False, timeout=WAIT_SECONDS) as client:
            listed = client.get(f"{running.url}/v1/models", headers=AS_ROOT).json()["models"]
            seen.add(tuple(sorted(model["id"] for model in listed)))
    if len(seen) != 1 or len(next(iter(seen))) != 1 or said.count(204) != len(names) - 1:
        return f"answers {said}, and then there were {sorted(seen)}"
    return None


@contextmanager
def _load(running: Service, said: Counter[int], *paths: str) -> Iterator[None]:
    """Clients that ask for several experiments again and again; their answers are counted."""
    stop = threading.Event()

    def work(path: str) -> None:
        while not stop.is_set():
            said[ask(running, "POST", path, content=bytes(9), headers=B8 | AS_ROOT, seconds=30)] += 1

    threads = [threading.Thread(target=work, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def replacements_under_load(running: Service) -> str | None:
    """A model replaced four times, twice at once, while eight experiments of it are decoded: no answer is lost."""
    model = {"code": "bb72", "decoder": "bposd-osd0", "rounds": 1}
    ask(running, "PUT", "/v1/models/hot", json=model, headers=AS_ROOT)
    said: Counter[int] = Counter()
    with _load(running, said, *(f"/v1/models/hot/decode?p=0.00{i}" for i in range(1, 9))):
        time.sleep(3)
        with ThreadPoolExecutor(2) as pool:
            puts = list(
                pool.map(
                    lambda p: ask(
                        running, "PUT", "/v1/models/hot", json=model | {"p": p}, headers=AS_ROOT, seconds=120
                    ),
                    (1e-3, 2e-3, 3e-3, 4e-3),
                )
            )
    if set(puts) != {200} or set(said) != {200}:
        return f"answers to PUT {puts}, to shots {dict(said)}"
    return None


def keys_that_are_none(running: Service) -> str | None:
    """A service whose keys are a comma does not start, nor one whose file of keys is empty."""
    started = []
    with tempfile.NamedTemporaryFile() as empty:
        cases: tuple[dict[str, str], ...] = ({"api_keys": ","}, {"api_keys": " "}, {"api_keys_file": empty.name})
        for settings in cases:
            with suppress(RuntimeError), harness.serve(core=None, models=(harness.MODEL,), **settings) as other:
                started.append(f"{settings}: {ask(other, 'GET', '/v1/models')}")
    return "; ".join(started) or None


def other_sites(running: Service) -> str | None:
    """What a page of another site has a browser send: each is refused."""
    foreign = {"origin": "https://elsewhere.example"}
    text = {"content-type": "text/plain"}
    infer = json.dumps(
        {"inputs": [{"name": "detection_events_b8", "shape": [1, 54], "datatype": "UINT8", "data": [0] * 54}]}
    )
    said = {
        "another name": ask(running, "GET", "/v1/models", headers={"host": "elsewhere.example"}),
        "another origin": ask(running, "GET", f"/v1/models/{MODEL}/circuit", headers=foreign),
        "a form": ask(running, "POST", f"/v2/models/{MODEL}/infer", content=infer, headers=text),
    }
    with dial(running.port) as connection:
        connection.sendall(
            GET.replace(b"/v1/models", f"/v1/models/{MODEL}/stream".encode())
            + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: tandem.stream.v1\r\n"
            + b"Origin: https://elsewhere.example\r\n\r\n"
        )
        said["a WebSocket"] = int(connection.recv(4096)[9:12])
    passed = {what: status for what, status in said.items() if status not in (403, 415)}
    return f"let through: {passed}" if passed else None


MODELS = (harness.MODEL, BPOSD, LARGE)
ATTACKS = [
    Attack("one model kept busy", one_model, models=(harness.MODEL, BPOSD), growth_mib=1500),
    Attack("nine large decoders", many_experiments, models=(harness.MODEL, LARGE), growth_mib=2500),
    Attack("JSON of 5.5 million lists", lambda running: lists_in_json(1, running)),
    Attack("JSON of 5.5 million lists, 24 at once", lambda running: lists_in_json(24, running), growth_mib=1500),
    Attack("JSON of 8 million numbers, 24 at once", numbers_in_json, growth_mib=1500),
    Attack("strange JSON", strange_json),
    Attack("256 bodies of 16 MiB", many_bodies, growth_mib=1500),
    Attack("weights that ask for gigabytes", weights_that_ask_for_much, WITH_KEYS, growth_mib=1000),
    Attack(
        "all models removed at once",
        removals_at_once,
        WITH_KEYS,
        options=("--workers", "2"),
        models=MODELS,
        growth_mib=1000,
        children_may_end=True,
    ),
    Attack("a model replaced under load", replacements_under_load, WITH_KEYS, growth_mib=1500, children_may_end=True),
    Attack("keys that are none", keys_that_are_none),
    Attack("pages of other sites", other_sites),
]
