"""Bodies of inference requests: JSON, tensors in it, and binary tensors after it."""

from __future__ import annotations

import math
import re
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from jiter import from_json
from pydantic import ValidationError

from service.errors import InvalidParametersError, InvalidShotsError
from service.oip.schemas import VERSION, InferInput, InferParameters, InferRequest
from service.wire.reweights import Reweights, listed_values
from service.wire.shots import ExpectedShots, check_lists, parse_b8
from simulation.bits import PackedBits, pack_bits, packed_size

HEADER_LENGTH = "Inference-Header-Content-Length"


Values = npt.NDArray[np.uint8] | npt.NDArray[np.float64]
"""Those of a tensor in one row: bytes, or reweights."""
BINARY_TYPES = {"BOOL": "u1", "UINT8": "u1", "FP32": "<f4", "FP64": "<f8"}
REWEIGHT_TYPES = ("FP32", "FP64")


def parse_request(body: bytes, *, header_length: str | None, most_shots: int) -> tuple[InferRequest, list[Values]]:
    """Reads the JSON of a body, and the values of its tensors, which are in it or after it.

    Args:
        body: JSON, and binary tensors after it.
        header_length: bytes of the JSON, as the header Inference-Header-Content-Length says; None: all are.
        most_shots: that a request may have.

    Returns:
        The request without its values, and these for each input.

    Raises:
        InvalidParametersError: a length that cannot be, or parameters that are unknown or out of range.
        InvalidShotsError: no JSON of this protocol, or no values of a tensor.
        TooManyShotsError: it has more lists than `most_shots` take.
    """
    length = len(body)
    if header_length is not None:
        # int() alone would also read signs and underscores, and refuse thousands of digits in its own way.
        length = int(header_length) if re.fullmatch("[0-9]{1,15}", header_length) else -1
        if not 0 < length <= len(body):
            raise InvalidParametersError(
                f"{HEADER_LENGTH}: {header_length[:20]} is not the length of the JSON in a body of {len(body)} bytes"
            )
    check_lists(body[:length], most_shots=2 * most_shots)  # a list of events, and one of reweights
    try:
        header = InferRequest.model_validate_json(body[:length])
        from_json(body[:length], catch_duplicate_keys=True)  # pydantic would take the last of two values
    except ValidationError as error:
        raise refusal_of(error) from None
    except ValueError as error:
        raise InvalidShotsError(str(error)) from None
    values = _values(header.inputs, body[length:])
    return header.model_copy(
        update={"inputs": [tensor.model_copy(update={"data": None}) for tensor in header.inputs]}
    ), values


def shots_and_reweights(
    request: InferRequest, values: list[Values], expected: ExpectedShots
) -> tuple[PackedBits, Reweights | None]:
    """Makes shots of the inputs of a request, and of what they say of the errors' probabilities.

    Args:
        request: without its values.
        values: of each of its inputs.
        expected: what the shots have to look like.

    Returns:
        Bit-packed shots, uint8 (shots, ceil(num_detectors / 8)), and reweights if there are any.

    Raises:
        InvalidShotsError: see `parse_shots`, or inputs that do not go together.
        TooManyShotsError: more than `expected.max_shots`.
    """
    given = list(zip(request.inputs, values, strict=True))
    events = [one for one in given if one[0].name != "reweights"]
    others = [one for one in given if one[0].name == "reweights"]
    if len(events) != 1 or len(others) > 1:
        raise InvalidShotsError("inputs: give detection_events or detection_events_b8, and at most one of reweights")
    tensor, numbers = events[0]
    shots = parse_shots(tensor, numbers.astype(np.uint8, copy=False), expected)
    if not others:
        return shots, None
    tensor, numbers = others[0]
    if tensor.datatype not in REWEIGHT_TYPES:
        raise InvalidShotsError(f"reweights: datatype {tensor.datatype}; they are FP32 or FP64")
    if min(tensor.shape) < 1 or len(numbers) != math.prod(tensor.shape):
        raise InvalidShotsError(f"reweights: {len(numbers)} values do not have the shape {tensor.shape}")
    meaning = (request.parameters or InferParameters()).reweights_are
    return shots, Reweights(numbers.reshape(tensor.shape).astype(np.float64), meaning)


def refusal_of(error: ValidationError) -> InvalidParametersError | InvalidShotsError:
    """What is wrong with an `InferRequest`."""
    first = error.errors(include_url=False)[0]
    path = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    detail = f"{path}: {message}" if path else message
    return InvalidParametersError(detail) if first["loc"][:1] == ("parameters",) else InvalidShotsError(detail)


def check_addressee(request: InferRequest, model_id: str) -> None:
    """Checks that a request whose body names a model is meant for the one in the URL.

    Raises:
        InvalidParametersError: it names another one.
    """
    for name, value, meant in (
        ("model_name", request.model_name, model_id),
        ("model_version", request.model_version, VERSION),
    ):
        if value is not None and value != meant:
            raise InvalidParametersError(f"{name} is {value[:80]!r}, and the URL means {meant!r}; name the same one")


def parse_shots(tensor: InferInput, values: npt.NDArray[np.uint8], expected: ExpectedShots) -> PackedBits:
    """Makes shots of the values of a tensor.

    Args:
        tensor: what the JSON says of it.
        values: its values.
        expected: what the shots have to look like.

    Returns:
        Bit-packed shots, uint8 (shots, ceil(num_detectors / 8)).

    Raises:
        InvalidShotsError: a shape, a length or values that are not those of shots of the experiment.
        TooManyShotsError: more than `expected.max_shots`.
    """
    num_detectors = expected.num_detectors
    packed = tensor.name == "detection_events_b8"
    columns = packed_size(num_detectors) if packed else num_detectors
    shape = tensor.shape
    if len(shape) != 2 or shape[0] < 1 or shape[1] != columns:
        raise InvalidShotsError(
            f"{tensor.name}: shape {shape}, but it must be [shots, {columns}], with at least one shot; "
            f"this experiment has {num_detectors} detectors"
        )
    if tensor.datatype in REWEIGHT_TYPES:
        raise InvalidShotsError(f"{tensor.name}: datatype {tensor.datatype}; events are BOOL or UINT8")
    if packed and tensor.datatype != "UINT8":
        raise InvalidShotsError(f"{tensor.name}: datatype {tensor.datatype}; bytes are UINT8")
    if len(values) != shape[0] * columns:
        raise InvalidShotsError(f"{tensor.name}: {len(values)} values, but shape {shape} takes {shape[0] * columns}")
    if not packed:
        wrong = np.flatnonzero(values > 1)
        if len(wrong):
            shot, detector = divmod(int(wrong[0]), columns)
            raise InvalidShotsError(
                f"{tensor.name}: shot {shot} holds {values[wrong[0]]} at detector {detector}; values are 0 or 1"
            )
        values = pack_bits(values.view(np.bool_).reshape(shape)).ravel()
    return parse_b8(values.tobytes(), expected)


def _values(tensors: list[InferInput], binary: bytes) -> list[Values]:
    """The values of each tensor; those that are binary follow one another behind the JSON."""
    sizes = [tensor.parameters.binary_data_size if tensor.parameters is not None else None for tensor in tensors]
    for tensor, size in zip(tensors, sizes, strict=True):
        if (size is None) == (tensor.data is None):
            raise InvalidShotsError(f"{tensor.name}: give either data or the parameter binary_data_size")
    if len(binary) != (declared := sum(size or 0 for size in sizes)):
        raise InvalidShotsError(
            f"{len(binary)} bytes follow the JSON, but its inputs have {declared} as their binary_data_size; "
            f"the header {HEADER_LENGTH} says where the JSON ends"
        )
    values: list[Values] = []
    begin = 0
    for tensor, size in zip(tensors, sizes, strict=True):
        if tensor.data is None:
            values.append(binary_values(tensor, binary[begin : begin + (size or 0)]))
            begin += size or 0
        elif tensor.name == "reweights":
            values.append(listed_values(tensor.data).ravel())
        else:
            values.append(_listed_values(tensor.name, tensor.data, tensor.shape))
    return values


def binary_values(tensor: InferInput, content: bytes) -> Values:
    """The values of a tensor that came as bytes.

    Raises:
        InvalidShotsError: these are no whole values.
    """
    dtype = np.dtype(BINARY_TYPES[tensor.datatype])
    if len(content) % dtype.itemsize:
        raise InvalidShotsError(f"{tensor.name}: {len(content)} bytes are no whole values of {tensor.datatype}")
    found = np.frombuffer(content, dtype=dtype)
    return found if dtype == np.uint8 else found.astype(np.float64)


def _listed_values(name: str, data: list[Any], shape: list[int]) -> npt.NDArray[np.uint8]:
    # The types are looked at before numpy sees the list: one long string would make every element as long.
    kinds = set(map(type, data))
    if kinds == {list} and len(shape) == 2:
        if len(data) != shape[0] or set(map(len, data)) != {shape[1]}:
            raise InvalidShotsError(f"{name}: the lists in data are not {shape[0]} lists of {shape[1]} values")
        data = list(chain.from_iterable(data))
        kinds = set(map(type, data))
    if not kinds <= {int, bool}:
        raise InvalidShotsError(f"{name}: data must hold whole numbers, or true and false, and nothing else")
    if data and not 0 <= min(data) <= max(data) <= 255:
        raise InvalidShotsError(f"{name}: data must be within 0 and 255")
    return np.array(data, dtype=np.uint8)
