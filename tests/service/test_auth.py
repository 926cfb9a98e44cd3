"""Who gets in, who does not, and that it takes no restart to change that."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from hashlib import sha256
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.app import create_app
from service.auth import KeyRing, is_loopback, parse_key
from service.settings import Settings

ALICE, BOB, ROOT = "alice-0123456789abcdef", "bob-0123456789abcdef", "root-0123456789abcdef"
DIGEST = sha256(ALICE.encode()).hexdigest()
OPEN = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/", "/docs", "/docs.js", "/common.js")
GUARDED = ("/v1/models", "/metrics", "/openapi.json", "/nothing", "/v1/models/m/circuit")


def write(file: Path, *lines: str) -> None:
    """Writes keys as an editor does, with a new inode, so that no clock has to move on."""
    (new := file.with_suffix(".new")).write_text("\n".join(lines) + "\n")
    os.replace(new, file)


@pytest.mark.parametrize(
    ("entry", "name", "admin"),
    [
        (f"alice:{ALICE}", "alice", False),
        (f"alice:sha256:{DIGEST}", "alice", False),
        (f"ops:admin:{ALICE}", "ops", True),
        (f"ops:admin:sha256:{DIGEST.upper()}", "ops", True),
    ],
)
def test_forms_of_a_key(entry, name, admin):
    key = parse_key(entry)
    assert (key.name, key.admin, key.digest) == (name, admin, bytes.fromhex(DIGEST))


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (ALICE, "name:key"),
        (f"a b:{ALICE}", "name has letters"),
        ("alice:short", "at least 16"),
        ("alice:with space 0123456789", "openssl"),
        ("alice:sha256:1234", "64 hexadecimal"),
        (f"alice:user:{ALICE}", "letters"),
    ],
)
def test_keys_that_are_none_are_told_without_being_repeated(entry, says):
    with pytest.raises(ValueError, match=says) as caught:
        parse_key(entry)
    assert entry.rpartition(":")[2] not in str(caught.value)


def test_a_ring_finds_whose_key_it_is():
    ring = KeyRing(keys=f"alice:{ALICE}, {BOB}")
    assert ring.required
    assert [ring.find(key.encode()).name for key in (ALICE, BOB)] == ["alice", "key-2"]
    for wrong in (b"", ALICE[:-1].encode(), (ALICE + "0").encode(), DIGEST.encode(), b"\xff\x00"):
        assert ring.find(wrong) is None


def test_without_keys_none_is_required():
    assert not KeyRing().required


def test_a_file_is_read_again_when_it_changes(tmp_path, caplog):
    file = tmp_path / "keys"
    write(file, "# who may ask", "", f"alice:{ALICE}", f"bob:sha256:{sha256(BOB.encode()).hexdigest()}")
    ring = KeyRing(file=file)
    assert ring.find(ALICE.encode()).name == "alice"
    assert ring.find(BOB.encode()).name == "bob"
    write(file, f"alice:{ALICE}")
    assert ring.find(BOB.encode()) is None
    write(file, "broken", f"bob:{BOB}")  # a slip must not keep alice's key alive
    assert ring.find(ALICE.encode()) is None
    assert ring.find(BOB.encode()).name == "bob"
    assert "a line is left out" in caplog.text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        (b"", "no API key"),
        (b"# revoked\n\n", "no API key"),
        (b"alice\n\xff\n", "no API key"),
        (b"#" * 2**21, "longer than"),
    ],
)
def test_a_file_that_holds_no_key_any_more_leaves_the_keys_and_is_one_error(tmp_path, caplog, content, says):
    """Neither is everybody let in, nor is everybody shut out by a slip of the editor."""
    write(file := tmp_path / "keys", f"alice:{ALICE}")
    ring = KeyRing(file=file)
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    for _ in range(3):
        assert ring.find(ALICE.encode()).name == "alice"
        assert ring.find(BOB.encode()) is None
    told = [record.message for record in caplog.records if "stay as they were" in record.message]
    assert len(told) == 1
    assert says in told[0]
    write(file, f"bob:{BOB}")
    assert ring.find(ALICE.encode()) is None
    assert ring.find(BOB.encode()).name == "bob"


def test_a_byte_that_is_not_utf8_costs_its_own_line_alone(tmp_path, caplog):
    write(file := tmp_path / "keys", f"alice:{ALICE}", f"bob:{BOB}")
    ring = KeyRing(file=file)
    file.write_bytes(f"# J\xfcrgen\nalice:{ALICE}\nb\xf6b:{BOB}\n".encode("latin-1"))
    assert ring.find(ALICE.encode()).name == "alice"
    assert ring.find(BOB.encode()) is None
    assert "a line is left out" in caplog.text


@pytest.mark.parametrize("keys", ["", " ", ",", " , ", ",,"])
def test_keys_that_hold_none_do_not_open_the_service(keys):
    """Two unset variables joined by a comma are a mistake, and no wish to do without keys."""
    with pytest.raises(ValueError, match="holds no key"):
        create_app(Settings(api_keys=SecretStr(keys)))


@pytest.mark.parametrize("content", ["", "# none\n", "alice\n"])
def test_a_file_without_keys_is_refused_at_the_start(tmp_path, content):
    (file := tmp_path / "keys").write_text(content)
    with pytest.raises(ValueError, match="name:key"):
        KeyRing(file=file)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)]
    + [(host, False) for host in ("0.0.0.0", "::", "192.168.1.2", "example.org", "")],
)
def test_loopback(host, loopback):
    assert is_loopback(host) is loopback


@pytest.mark.anyio
async def test_every_route_but_the_probes_needs_a_key(serve, make, echo, tmp_path):
    file = tmp_path / "keys"
    write(file, f"alice:{ALICE}", f"bob:{BOB}")

    async with serve(make, api_keys_file=file, api_keys=f"root:admin:{ROOT}") as client:
        for path in OPEN:
            assert (await client.get(path)).status_code == 200
        for path in GUARDED:
            for headers in ({}, {"authorization": f"Bearer {ALICE[:-1]}"}, {"authorization": ALICE}, {"x-api-key": ""}):
                response = await client.get(path, headers=headers)
                assert response.status_code == 401, (path, headers)
                assert response.headers["content-type"] == "application/problem+json"
                assert response.json()["type"] == "urn:problem-type:tandem:unauthorized"
                assert response.headers["www-authenticate"].startswith("Bearer realm=")
        for headers in ({"authorization": f"Bearer {BOB}"}, {"authorization": f"bearer {ROOT}"}, {"x-api-key": BOB}):
            assert (await client.get("/v1/models", headers=headers)).status_code == 200
        assert (await client.post("/v1/models/m/decode", json={"shots": [[0] * 72]})).status_code == 401
        assert echo.batches == [4]  # the warm-up alone
        write(file, f"alice:{ALICE}")
        inference = await client.get("/v2/models/m")
        assert (inference.status_code, list(inference.json())) == (401, ["error"])
        revoked = await client.get("/v1/models", headers={"x-api-key": BOB})
        assert (revoked.status_code, "not any more" in revoked.json()["detail"]) == (401, True)
        metrics = (await client.get("/metrics", headers={"x-api-key": ALICE})).text
        assert 'tandem_failures_total{model="",reason="unauthorized"} 23.0' in metrics


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "extensions", "expected"),
    [
        ([], {"websocket.http.response": {}}, ("websocket.http.response.start", 401)),
        (
            [(b"x-api-key", ALICE[:-1].encode())],
            {"websocket.http.response": {}},
            ("websocket.http.response.start", 401),
        ),
        ([(b"x-api-key", ALICE.encode())], {"websocket.http.response": {}}, ("websocket.http.response.start", 404)),
        ([], {}, ("websocket.close", 1008)),
    ],
)
async def test_a_websocket_needs_a_key_too(headers, extensions, expected):
    """Before it comes to a route, which here does not know the model."""
    app = create_app(Settings(api_keys=SecretStr(f"alice:{ALICE}")))
    sent = []

    async def receive() -> dict:
        return {"type": "websocket.connect"}

    async def send(message: MutableMapping) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/v1/models/m/stream", "raw_path": b"", "query_string": b"", "root_path": ""}
    scope |= {"headers": headers, "subprotocols": [], "client": ("10.0.0.1", 1), "extensions": extensions}
    await app(scope, receive, send)
    assert (sent[0]["type"], sent[0].get("status", sent[0].get("code"))) == expected
