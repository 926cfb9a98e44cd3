"""Clients of the service in Python: `Client`, and `AsyncClient` for asyncio."""

from service.client.answers import ServiceError
from service.client.client import AsyncClient, Client
from service.client.exchange import Retries
from service.client.streams import Committed, StreamAnswer

__all__ = ["AsyncClient", "Client", "Committed", "Retries", "ServiceError", "StreamAnswer"]
