"""Networks by the name of their architecture."""

from __future__ import annotations

from collections.abc import Callable

from decoder.neural.blue import BlueNetwork
from decoder.neural.config import Architecture, ModelConfig
from decoder.neural.model import RecurrentTransformer
from decoder.neural.network import Network

ARCHITECTURES: dict[Architecture, Callable[[ModelConfig], Network]] = {
    "tandem": RecurrentTransformer,
    "blue": BlueNetwork,
}


def build_network(config: ModelConfig) -> Network:
    """A network with fresh weights, drawn from torch's global generator."""
    return ARCHITECTURES[config.architecture](config)
