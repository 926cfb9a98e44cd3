"""Inference requests and answers as protobuf messages, to and from what the routes over HTTP work with.

Messages are those of tritonclient, which has the protocol of KServe and Triton's extensions
(https://github.com/triton-inference-server/common/blob/main/protobuf/grpc_service.proto). Two copies of them in one
process would clash, as all are called the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import ValidationError
from tritonclient.grpc import service_pb2

from service.errors import InvalidParametersError, InvalidShotsError
from service.oip.requests import REWEIGHT_TYPES, Values, binary_values, refusal_of
from service.oip.responses import DATATYPES, wire_bytes
from service.oip.schemas import VERSION, InferInput, InferRequest, OutputName
from service.wire.shots import DecodeResult

CONTENTS = {"BOOL": "bool_contents", "UINT8": "uint_contents", "FP32": "fp32_contents", "FP64": "fp64_contents"}
"""Where values of each type are."""
MAX_LISTED_VALUES = 2**20
"""Most values in `contents`: numpy reads them one by one, 30 ms of the event loop."""


def read_request(message: Any) -> tuple[InferRequest, list[Values]]:
    """Reads a ModelInferRequest.

    Returns:
        The request without its values, and these for each input.

    Raises:
        InvalidParametersError: parameters that are unknown or out of range.
        InvalidShotsError: inputs or outputs that are not those of this protocol, or no values of a tensor.
    """
    content = {
        "id": message.id or None,
        "parameters": _parameters(message.parameters),
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": _parameters(tensor.parameters) or None,
            }
            for tensor in message.inputs
        ],
        "outputs": [
            {"name": tensor.name, "parameters": _parameters(tensor.parameters) or None} for tensor in message.outputs
        ],
    }
    try:
        request = InferRequest.model_validate(content)
    except ValidationError as error:
        raise refusal_of(error) from None
    return request, _values(request, message)


def write_response(
    result: DecodeResult, *, model_name: str, request_id: str | None, outputs: dict[OutputName, bool]
) -> Any:
    """Writes a ModelInferResponse; all outputs are raw, row by row, little-endian."""
    response = service_pb2.ModelInferResponse(model_name=model_name, model_version=VERSION, id=request_id or "")
    for name in outputs:
        shape, raw = wire_bytes(result, name)
        response.outputs.add(name=name, datatype=DATATYPES[name], shape=shape)
        response.raw_output_contents.append(raw)
    return response


def _parameters(parameters: Any) -> dict[str, object]:
    found = {}
    for name, parameter in parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        if kind is None:
            raise InvalidParametersError.of(f"parameter {name[:80]} has no value", parameter=name[:80])
        found[name] = getattr(parameter, kind)
    return found


def _values(request: InferRequest, message: Any) -> list[Values]:
    raw, listed = message.raw_input_contents, [tensor.contents.ListFields() for tensor in message.inputs]
    if any(listed) if raw else not all(len(one) == 1 for one in listed):
        raise InvalidShotsError("inputs: give all values either in raw_input_contents or in contents, once")
    if not raw:
        return [_listed(tensor, *one[0]) for tensor, one in zip(request.inputs, listed, strict=True)]
    if len(raw) != len(request.inputs):
        raise InvalidShotsError(f"{len(raw)} raw_input_contents for {len(request.inputs)} inputs; give one for each")
    return [binary_values(tensor, one) for tensor, one in zip(request.inputs, raw, strict=True)]


def _listed(tensor: InferInput, field: Any, values: Any) -> Values:
    """The values in one field of `contents`."""
    if field.name != (wanted := CONTENTS[tensor.datatype]):
        raise InvalidShotsError(f"{tensor.name}: {field.name}; values of {tensor.datatype} are {wanted}")
    if len(values) > MAX_LISTED_VALUES:
        detail = f"{len(values)} values in contents, and at most {MAX_LISTED_VALUES} are read"
        raise InvalidShotsError(f"{tensor.name}: {detail}; send raw_input_contents")
    if tensor.datatype in REWEIGHT_TYPES:
        return np.fromiter(values, dtype=np.float64, count=len(values))
    numbers = np.fromiter(values, dtype=np.uint32, count=len(values))
    if numbers.max(initial=0) > 255:
        raise InvalidShotsError(f"{tensor.name}: values must be within 0 and 255")
    return numbers.astype(np.uint8)
