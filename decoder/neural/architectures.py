"""Networks by the name of their architecture."""

from __future__ import annotations

from decoder.neural.config import ModelConfig
from decoder.neural.model import RecurrentTransformer
from decoder.neural.network import Network


def build_network(config: ModelConfig) -> Network:
    """A network with fresh weights, drawn from torch's global generator."""
    return RecurrentTransformer(config)
