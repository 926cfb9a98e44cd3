"""Answers to inference requests: which outputs, and each as JSON or as binary data."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import Response
from pydantic_core import to_json

from service.errors import InvalidParametersError
from service.models.model import Model
from service.oip.requests import HEADER_LENGTH
from service.oip.schemas import VERSION, InferRequest, OutputDatatype, OutputName, TensorMetadata
from service.wire.shots import DecodeResult
from simulation.bits import pack_bits

DATATYPES: dict[OutputName, OutputDatatype] = {
    "predictions": "BOOL",
    "predictions_b8": "UINT8",
    # Confidences close to 1 matter most, where float32 has steps of 6e-8.
    "confidence": "FP64",
    "flip_probabilities": "FP32",
    "opinions": "UINT8",
    "errors_b8": "UINT8",
    "converged": "BOOL",
}
OF_ERRORS = frozenset({"errors_b8", "converged"})
"""Outputs of decoders that tell errors, which are answered only if they are asked for."""
_WIRE_TYPES: dict[OutputDatatype, str] = {"BOOL": "?", "UINT8": "u1", "FP32": "<f4", "FP64": "<f8"}


def outputs_of(model: Model) -> tuple[OutputName, ...]:
    """What a model that is ready answers to a request that lists no outputs."""
    probabilities: tuple[OutputName, ...] = ("confidence", "flip_probabilities") if model.gives_confidence else ()
    opinions: tuple[OutputName, ...] = ("opinions",) if model.second is not None else ()
    return ("predictions", *probabilities, *opinions)


def platform_of(model: Model) -> str:
    """What decodes, as a platform is called."""
    return f"tandem_{model.settings.decoder}"


def input_metadata(model: Model) -> list[TensorMetadata]:
    """The input of a model's default experiment, with -1 for the number of shots."""
    return [TensorMetadata(name="detection_events", datatype="BOOL", shape=[-1, model.default.num_detectors])]


def output_metadata(model: Model) -> list[TensorMetadata]:
    """These outputs for the model's default experiment, with -1 for the number of shots."""
    shapes: dict[OutputName, list[int]] = {"confidence": [-1], "opinions": [-1]}
    return [
        TensorMetadata(name=name, datatype=DATATYPES[name], shape=shapes.get(name, [-1, model.default.num_observables]))
        for name in outputs_of(model)
    ]


def chosen_outputs(request: InferRequest, model: Model) -> dict[OutputName, bool]:
    """The outputs to answer, in their order, and whether each is binary.

    Raises:
        InvalidParametersError: an output is named twice, or the model does not give it, or not beside errors.
    """
    binary = bool(request.parameters and request.parameters.binary_data_output)
    given = outputs_of(model)
    if not request.outputs:
        return dict.fromkeys(given, binary)
    chosen: dict[OutputName, bool] = {}
    for output in request.outputs:
        if output.name in chosen:
            raise InvalidParametersError(f"outputs: {output.name} is named twice")
        if output.name not in ("predictions_b8", *OF_ERRORS, *given):
            raise InvalidParametersError(f"outputs: this model's decoder gives no {output.name}; leave it out")
        own = output.parameters.binary_data if output.parameters is not None else None
        chosen[output.name] = binary if own is None else own
    beside = [name for name in ("confidence", "flip_probabilities", "opinions") if name in chosen]
    if beside and not OF_ERRORS.isdisjoint(chosen):
        raise InvalidParametersError(f"outputs: {beside[0]} and errors do not come in one answer; ask twice")
    return chosen


def infer_response(
    result: DecodeResult, *, model_name: str, request_id: str | None, outputs: dict[OutputName, bool]
) -> Response:
    """Writes an `InferResponse`, and the binary outputs after it."""
    described: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for name, binary in outputs.items():
        tensor: dict[str, Any] = {"name": name, "datatype": DATATYPES[name]}
        if binary:
            shape, content = wire_bytes(result, name)
            parts.append(content)
            described.append(tensor | {"shape": shape, "parameters": {"binary_data_size": len(content)}})
        else:
            values = _values(result, name)
            described.append(tensor | {"shape": values.shape, "data": values.ravel().tolist()})
    answer: dict[str, Any] = {"model_name": model_name, "model_version": VERSION, "outputs": described}
    if request_id is not None:
        answer["id"] = request_id
    header = to_json(answer)
    if not parts:
        return Response(header, headers=result.headers, media_type="application/json")
    return Response(
        b"".join([header, *parts]),
        headers={HEADER_LENGTH: str(len(header))} | result.headers,
        media_type="application/octet-stream",
    )


def wire_bytes(result: DecodeResult, name: OutputName) -> tuple[tuple[int, ...], bytes]:
    """The shape of an output, and its values row by row, little-endian."""
    values = _values(result, name)
    return values.shape, values.astype(_WIRE_TYPES[DATATYPES[name]], copy=False).tobytes()


def _values(result: DecodeResult, name: OutputName) -> npt.NDArray[np.generic]:
    if name == "predictions_b8":
        return pack_bits(result.predictions)
    values: npt.NDArray[np.generic] | None = getattr(result, name)
    assert values is not None, f"a decoder that gives probabilities gave no {name}"
    return values
