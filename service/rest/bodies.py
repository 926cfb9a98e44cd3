"""From the body of a decode request to its shots, and the decoder for them."""

from __future__ import annotations

from decoder.base import Decoder
from service.http.bounds import JSON
from service.models.engine import Engine
from service.models.model import Model
from service.wire.schemas import DecodeQuery
from service.wire.shots import parse_b8, parse_json
from simulation.bits import PackedBits


async def read_shots(
    engine: Engine, model: Model, query: DecodeQuery, sent: str, body: bytes
) -> tuple[Decoder, PackedBits]:
    """The shots of a body and the decoder for them.

    Raises:
        RequestError: there is no such decoder, or these are no shots for it.
    """
    decoder = await engine.decoder(model, query)
    parse = parse_json if sent == JSON else parse_b8
    shots = parse(
        body,
        num_detectors=decoder.num_detectors,
        num_observables=decoder.num_observables,
        max_shots=engine.settings.max_shots_per_request,
    )
    return decoder, shots
