"""What an inference request does, whichever way it came."""

from __future__ import annotations

from contextlib import nullcontext

from service.http.bounds import deadline
from service.models.model import Model
from service.models.prepared import Prepared
from service.oip.requests import Values, shots_and_reweights
from service.oip.responses import OF_ERRORS, chosen_outputs
from service.oip.schemas import InferParameters, InferRequest, OutputName
from service.wire.shots import DecodeResult


async def infer(model: Model, sent: InferRequest, values: list[Values]) -> tuple[DecodeResult, dict[OutputName, bool]]:
    """Decodes the shots of a request.

    Args:
        model: decodes; leased by the caller.
        sent: the request.
        values: of its tensors.

    Raises:
        RequestError: those of `Prepared`, and what is wrong with the request.

    Returns:
        The result, and the outputs to answer, each with whether it is to be binary.
    """
    asked = sent.parameters or InferParameters()
    most = model.bounds.decode_timeout_seconds
    async with nullcontext() if asked.timeout_ms is None else deadline(asked.timeout_ms, most_seconds=most):
        prepared = await Prepared.of(model, asked)
        outputs = chosen_outputs(sent, model)
        shots, reweights = shots_and_reweights(sent, values, prepared.expected)
        told = not OF_ERRORS.isdisjoint(outputs)
        result = await prepared.decode(shots, deadline_ms=asked.deadline_ms, errors=told, reweights=reweights)
        return result, outputs
