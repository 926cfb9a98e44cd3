"""Answers to inference requests: which outputs, and each as JSON or as binary data."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import Response
from pydantic_core import to_json

from service.errors import InvalidParametersError
from service.oip.requests import HEADER_LENGTH
from service.oip.schemas import InferRequest, OutputDatatype, OutputName, TensorMetadata
from service.wire.shots import DecodeResult
from simulation.bits import pack_bits

DATATYPES: dict[OutputName, OutputDatatype] = {
    "predictions": "BOOL",
    "predictions_b8": "UINT8",
    # Confidences close to 1 matter most, where float32 has steps of 6e-8.
    "confidence": "FP64",
    "flip_probabilities": "FP32",
    "opinions": "UINT8",
}
_WIRE_TYPES: dict[OutputDatatype, str] = {"BOOL": "?", "UINT8": "u1", "FP32": "<f4", "FP64": "<f8"}


def default_outputs(*, soft: bool, pair: bool = False) -> tuple[OutputName, ...]:
    """The outputs of an answer to a request that lists none; `soft` decoders give probabilities, pairs who answered."""
    probabilities: tuple[OutputName, ...] = ("confidence", "flip_probabilities") if soft else ()
    opinions: tuple[OutputName, ...] = ("opinions",) if pair else ()
    return ("predictions", *probabilities, *opinions)


def output_metadata(*, num_observables: int, soft: bool, pair: bool = False) -> list[TensorMetadata]:
    """The default outputs, with -1 for the number of shots."""
    shapes: dict[OutputName, list[int]] = {"confidence": [-1], "opinions": [-1]}
    return [
        TensorMetadata(name=name, datatype=DATATYPES[name], shape=shapes.get(name, [-1, num_observables]))
        for name in default_outputs(soft=soft, pair=pair)
    ]


def chosen_outputs(request: InferRequest, *, soft: bool, pair: bool = False) -> dict[OutputName, bool]:
    """The outputs to answer, in their order, and whether each is binary.

    Raises:
        InvalidParametersError: an output is named twice, or the decoder does not give it.
    """
    binary = bool(request.parameters and request.parameters.binary_data_output)
    if not request.outputs:
        return dict.fromkeys(default_outputs(soft=soft, pair=pair), binary)
    chosen: dict[OutputName, bool] = {}
    for output in request.outputs:
        if output.name in chosen:
            raise InvalidParametersError(f"outputs: {output.name} is named twice")
        if output.name not in ("predictions_b8", *default_outputs(soft=soft, pair=pair)):
            raise InvalidParametersError(f"outputs: this model's decoder gives no {output.name}; leave it out")
        own = output.parameters.binary_data if output.parameters is not None else None
        chosen[output.name] = binary if own is None else own
    return chosen


def infer_response(
    answer: DecodeResult,
    *,
    model_name: str,
    model_version: str,
    request_id: str | None,
    outputs: dict[OutputName, bool],
) -> Response:
    """Writes an `InferResponse`, and the binary outputs after it."""
    described: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for name, binary in outputs.items():
        values = _values(answer, name)
        tensor = {"name": name, "datatype": DATATYPES[name], "shape": values.shape}
        if binary:
            parts.append(values.astype(_WIRE_TYPES[DATATYPES[name]], copy=False).tobytes())
            described.append(tensor | {"parameters": {"binary_data_size": len(parts[-1])}})
        else:
            described.append(tensor | {"data": values.ravel().tolist()})
    content: dict[str, Any] = {"model_name": model_name, "model_version": model_version, "outputs": described}
    if request_id is not None:
        content["id"] = request_id
    header = to_json(content)
    if not parts:
        return Response(header, media_type="application/json")
    return Response(
        b"".join([header, *parts]),
        headers={HEADER_LENGTH: str(len(header))},
        media_type="application/octet-stream",
    )


def _values(answer: DecodeResult, name: OutputName) -> npt.NDArray[np.generic]:
    if name == "predictions_b8":
        return pack_bits(answer.predictions)
    values: npt.NDArray[np.generic] | None = getattr(answer, name)
    assert values is not None, f"a decoder that gives probabilities gave no {name}"
    return values
