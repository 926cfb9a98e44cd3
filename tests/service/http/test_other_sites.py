"""What pages of other sites have a browser send to a service without keys, over a real socket."""

from __future__ import annotations

import json
import logging

import httpx
import pytest
from pydantic import ValidationError
from websockets.exceptions import InvalidStatus

from service.settings import ModelSettings, Settings
from service.telemetry.logs import ACCESS
from tests.helpers import PATIENCE_SECONDS

pytestmark = pytest.mark.anyio

MODEL = ModelSettings(id="m", code="bb72", decoder="bposd", rounds=1, own_process=False)
FOREIGN = "https://elsewhere.example"


@pytest.fixture
def site(lab_server, make):
    """Serves, and gives what asks for a path and says that it goes to a host: the status and the problem."""

    def serve(**settings):
        return lab_server(MODEL, make=make, **settings)

    return serve


async def ask(running, path: str = "/v1/models", **headers: str) -> int:
    """The status of an answer; header names are given with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS, verify=False) as client:
        response = await client.get(f"{running.http}{path}", headers=named)
    if response.status_code == 403 and path.startswith("/v1"):
        assert response.headers["content-type"] == "application/problem+json"
    return response.status_code


async def test_a_loopback_service_without_keys_is_asked_by_its_own_name(site):
    """A name of a web page's own that points to 127.0.0.1 would let the page read answers (DNS rebinding)."""
    async with site(allowed_hosts=("Tandem.Example", "testserver")) as running:
        port = running.port
        for host in (f"127.0.0.1:{port}", "localhost", "[::1]:80", "127.0.0.2", f"LOCALHOST:{port}", "tandem.example"):
            assert await ask(running, host=host) == 200, host
        for host in (f"elsewhere.example:{port}", "127.0.0.1.elsewhere.example", "a@b", "[", "[::1", "*", "[x]:1"):
            assert await ask(running, host=host) == 403, host
        assert await ask(running, "/healthz", host="elsewhere.example") == 200
        assert await ask(running, "/v2", host="elsewhere.example") == 403
        assert await running.metric('tandem_failures_total{model="",reason="forbidden"}') == 8


async def test_pages_of_other_sites_ask_for_nothing(site):
    async with site(allowed_hosts=("tandem.example",)) as running:
        own = f"http://127.0.0.1:{running.port}"
        for headers in ({"origin": own}, {"origin": "https://tandem.example"}, {"sec_fetch_site": "same-origin"}):
            assert await ask(running, **headers) == 200, headers
        for headers in (
            {"origin": FOREIGN},
            {"origin": "null"},
            {"origin": "http://["},
            {"origin": f"http://127.0.0.1:{running.port + 1}"},
            {"sec_fetch_site": "cross-site"},
            {"sec_fetch_site": "same-site"},
        ):
            assert await ask(running, **headers) == 403, headers
        for path in ("/", "/docs"):  # a link to the page is no harm
            assert await ask(running, path, sec_fetch_site="cross-site") == 200
        async with running.lab(headers={"origin": own}):
            pass
        with pytest.raises(InvalidStatus, match="403"):
            async with running.lab(headers={"origin": FOREIGN}):
                pass


async def test_with_keys_any_name_will_do(site):
    """A page does not know the key, and browsers send none by themselves."""
    async with site(api_keys="alice:alice-0123456789abcdef") as running:
        assert await ask(running, host="tandem.example", origin=FOREIGN, x_api_key="alice-0123456789abcdef") == 200


async def test_bodies_of_forms_are_refused(serve, make):
    """A browser sends them to any site without asking it first."""
    body = json.dumps({"inputs": []})
    async with serve(make) as client:
        for sent_as in ("text/plain", "Text/Plain;charset=UTF-8", "application/x-www-form-urlencoded"):
            for path in ("/v1/models/m/decode", "/v2/models/m/infer"):
                response = await client.post(path, content=body, headers={"content-type": sent_as})
                assert response.status_code == 415, (path, sent_as)


@pytest.mark.parametrize(
    ("proxies", "client"), [((), "127.0.0.1"), (("127.0.0.0/8",), "9.9.9.9"), (("10.0.0.1",), "127.0.0.1")]
)
async def test_forwarded_addresses_are_believed_of_named_proxies_alone(site, caplog, proxies, client):
    caplog.set_level(logging.INFO, logger=ACCESS.name)
    async with site(trusted_proxies=proxies) as running:
        caplog.clear()
        assert await ask(running, x_forwarded_for="9.9.9.9") == 200
        (line,) = [record.fields for record in caplog.records if record.name == ACCESS.name]
    assert line["client"].rpartition(":")[0] in (client, "")
    assert client in line["client"]


def test_a_proxy_that_is_no_address_is_refused():
    with pytest.raises(ValidationError, match="trusted_proxies"):
        Settings.model_validate({"trusted_proxies": ["proxy.example"]})
