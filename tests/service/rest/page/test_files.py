"""The files of the page, over HTTP."""

from __future__ import annotations

import re
import socket
from importlib import resources

import httpx
import pytest


@pytest.mark.parametrize(
    ("path", "name", "media_type"),
    [
        ("", "index.html", "text/html; charset=utf-8"),
        ("style.css", "style.css", "text/css; charset=utf-8"),
        ("script.js", "script.js", "text/javascript; charset=utf-8"),
        ("common.js", "common.js", "text/javascript; charset=utf-8"),
        ("numbers.js", "numbers.js", "text/javascript; charset=utf-8"),
        ("curve.js", "curve.js", "text/javascript; charset=utf-8"),
        ("own.js", "own.js", "text/javascript; charset=utf-8"),
        ("docs", "docs.html", "text/html; charset=utf-8"),
        ("docs.js", "docs.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "icon.svg", "image/svg+xml"),
    ],
)
def test_files(url, path, name, media_type):
    response = httpx.get(url + path)
    assert response.status_code == 200
    assert response.content == (resources.files("service.rest") / "web" / name).read_bytes()
    assert response.headers["content-type"] == media_type
    assert response.headers["x-content-type-options"] == "nosniff"
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    head = httpx.head(url + path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == response.headers["content-length"]


def test_an_unchanged_file_is_not_sent_again(url):
    etag = httpx.get(f"{url}script.js").headers["etag"]
    for known in (etag, f'"other", W/{etag}', "*"):
        again = httpx.get(f"{url}script.js", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert httpx.get(f"{url}script.js", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/../app.py", "/web/index.html", "/index.html", "/%2e%2e/app.py", "/..%2fapp.py", "//etc/passwd", "/web/"]
)
def test_no_path_leads_to_another_file(url, path):
    with socket.create_connection((httpx.URL(url).host, httpx.URL(url).port)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"application/problem+json" in answer


def test_nothing_is_inline_and_nothing_comes_from_elsewhere():
    files = resources.files("service.rest") / "web"
    for name in ("index.html", "docs.html"):
        assert not re.search(r"<script(?![^>]* src=)|<style|\s(style|on\w+)=", (files / name).read_text())
    for name in (
        "index.html",
        "docs.html",
        "style.css",
        "script.js",
        "common.js",
        "curve.js",
        "numbers.js",
        "own.js",
        "docs.js",
    ):
        addresses = re.findall(r"https?://[^\"'\s)]+", (files / name).read_text())
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}  # a name, which nobody fetches
