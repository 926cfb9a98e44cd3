"""Clients of the service in Python: `Client`, and `AsyncClient` for asyncio."""

from service.client.client import AsyncClient, Client
from service.client.exchange import Retries, ServiceError

__all__ = ["AsyncClient", "Client", "Retries", "ServiceError"]
