"""Bodies with a Content-Encoding are decoded within the limits, or refused, on every route that has a body."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

pytestmark = pytest.mark.anyio

URL = "/v1/models/m/decode"
B8 = {"content-type": "application/octet-stream"}
SHOTS = bytes(9 * 3)  # bb72, one round: 72 detectors
PACKED = gzip.compress(SHOTS, mtime=0)
"""The same bytes whenever they are made: tests are named by them."""
GZIP = {"content-encoding": "gzip"}


async def test_gzip_is_decoded(serve, make):
    async with serve(make) as client:
        plain = await client.post(URL, content=SHOTS, headers=B8)
        for coding in ("gzip", "x-gzip", " GZip"):
            packed = await client.post(URL, content=gzip.compress(SHOTS), headers=B8 | {"content-encoding": coding})
            assert (packed.status_code, packed.content) == (200, plain.content)
            assert packed.headers["x-tandem-num-shots"] == "3"
        packed = gzip.compress(json.dumps({"shots": [[0] * 72]}).encode())
        response = await client.post(URL, content=packed, headers=GZIP | {"content-type": "application/json"})
        assert response.json()["num_shots"] == 1
        tensor = {"name": "detection_events", "datatype": "BOOL", "shape": [1, 72], "data": [0] * 72}
        packed = gzip.compress(json.dumps({"inputs": [tensor]}).encode())
        assert (await client.post("/v2/models/m/infer", content=packed, headers=GZIP)).is_success


async def test_gzip_that_comes_byte_by_byte(serve, make):
    async def drip():
        for byte in gzip.compress(SHOTS):
            yield bytes([byte])

    async with serve(make) as client:
        assert (await client.post(URL, content=drip(), headers=B8 | GZIP)).is_success


@pytest.mark.parametrize(("limit", "status"), [(9 * 1000, 200), (9 * 1000 - 1, 413)])
async def test_what_is_decoded_is_bounded(serve, make, limit, status):
    async with serve(make, max_body_bytes=limit) as client:
        response = await client.post(URL, content=gzip.compress(bytes(9 * 1000)), headers=B8 | GZIP)
        assert response.status_code == status


async def test_a_gigabyte_in_a_megabyte_is_not_decoded_to_its_end(serve, make):
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(2**10)) + packer.flush()
    async with serve(make, max_body_bytes=2**20 + 10) as client:
        assert (await client.post(URL, content=bomb[: 2**20], headers=B8 | GZIP)).status_code == 413


@pytest.mark.parametrize(
    ("coding", "body", "why"),
    [
        ("br", PACKED, "'br' is not known"),
        ("zstd", PACKED, "'zstd' is not known"),
        ("gzip, gzip", gzip.compress(PACKED, mtime=0), "'gzip, gzip' is not known"),
        ("gzip", SHOTS, "no gzip"),
        ("gzip", PACKED[:-9], "ends before"),
        ("gzip", b"", "ends before"),
        ("gzip", PACKED + b"x", "goes on"),
        ("gzip", PACKED * 2, "goes on"),
        ("gzip", PACKED[:-8] + bytes(8), "no gzip"),
    ],
)
async def test_what_is_not_gzip_is_refused(serve, make, coding, body, why):
    async with serve(make) as client:
        response = await client.post(URL, content=body, headers=B8 | {"content-encoding": coding})
        assert response.status_code == 415
        assert response.json()["type"].endswith(":unsupported-encoding")
        assert why in response.json()["detail"]
        assert response.headers["accept-encoding"] == "gzip"
        response = await client.post("/v2/models/m/infer", content=body, headers={"content-encoding": coding})
        assert (response.status_code, why in response.json()["error"]) == (415, True)
