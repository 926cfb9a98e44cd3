"""Where a service is, how a client shows its key, and what models and experiments are called there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypedDict
from urllib.request import proxy_bypass

from service.auth import is_loopback
from simulation.bases import Basis

if TYPE_CHECKING:
    import httpx  # takes a third of a second to import, so that the functions that need it do

API_KEY_VARIABLE = "TANDEM_API_KEY"


class ExperimentOptions(TypedDict, total=False):
    """Which experiment is meant. What is left out or None is that of the model's default experiment."""

    basis: Basis | None
    """Basis of the logical memory."""
    rounds: int | None
    """Syndrome rounds."""
    p: float | None
    """Physical error rate."""
    experiment: str | None
    """The id of an experiment that was sent, see `Exchange.add_experiment`, in the place of all these."""


def checked_url(url: str) -> httpx.URL:
    """The URL of a service.

    Raises:
        ValueError: this is none, or holds what belongs into no URL.
    """
    import httpx

    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is not the URL of a service ({error}); give http://HOST:PORT") from None
    if parsed.scheme == "unix" and parsed.path.startswith("/") and not (parsed.host or parsed.query or parsed.fragment):
        return parsed
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
        raise ValueError(f"{url!r} is not the URL of a service; give http://HOST:PORT, or unix:/PATH of its socket")
    if parsed.userinfo:
        raise ValueError(f"the URL holds a name or a password; a service takes a key, from {API_KEY_VARIABLE}")
    return parsed


def unproxied(url: httpx.URL) -> bool:
    """Whether a service is asked directly, whatever proxies the environment names: on this machine, or in NO_PROXY."""
    if url.scheme == "unix":
        return True
    return is_loopback(url.host) or bool(proxy_bypass(f"{url.host}:{url.port}" if url.port else url.host))


def socket_path(url: httpx.URL) -> str | None:
    """The Unix domain socket that a URL names, if it names one."""
    return url.path if url.scheme == "unix" else None


def authorization(api_key: str | None) -> dict[str, str]:
    """The header with the API key; None takes it from TANDEM_API_KEY, if that is set."""
    key = os.environ.get(API_KEY_VARIABLE, "") if api_key is None else api_key
    if not key.isascii() or not key.isprintable():
        raise ValueError(f"the API key has characters that no header can hold; check {API_KEY_VARIABLE}")
    return {"Authorization": f"Bearer {key}"} if key else {}


def model_path(model_id: str) -> str:
    """The path of a model.

    Raises:
        ValueError: this is not the id of a model, and would lead elsewhere.
    """
    return f"v1/models/{harmless(model_id)}"


def harmless(id: str) -> str:
    """The id of a model or of an experiment itself.

    Raises:
        ValueError: it is none, and as a part of a path would lead elsewhere.
    """
    if id in ("", ".", "..") or not all(character.isprintable() and character not in "/?#%\\" for character in id):
        raise ValueError(f"{id!r} is not the id of a model or an experiment")
    return id


def experiment_params(
    *, basis: Basis | None = None, rounds: int | None = None, p: float | None = None, experiment: str | None = None
) -> dict[str, object]:
    """The query that names an experiment; what is None is left to the model."""
    named = {"basis": basis, "rounds": rounds, "p": p, "experiment": experiment}
    return {name: value for name, value in named.items() if value is not None}
