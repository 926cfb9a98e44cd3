"""Decoding over HTTP: the service, the `tandem` command, and clients.

What most users need can be imported from here, and is in the module that `help` names::

    from service import Client

    with Client("http://127.0.0.1:8000") as client:
        print(client.models())
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulation.lazy import offer

if TYPE_CHECKING:
    from service.app import create_app
    from service.client import AsyncClient, Client, Retries, ServiceError
    from service.settings import Settings

    __version__: str

__all__ = ["AsyncClient", "Client", "Retries", "ServiceError", "Settings", "__version__", "create_app"]

__getattr__, __dir__ = offer(
    __name__,
    {
        "service.app": ["create_app"],
        "service.client": ["AsyncClient", "Client", "Retries", "ServiceError"],
        "service.settings": ["Settings"],
    },
)
