"""Probabilities of errors that come with shots: for all of a request, or for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.errors import Flaw, InvalidShotsError
from service.wire.schemas import Form, Meaning

Values = npt.NDArray[np.float64]
VALUE_BYTES = 8
"""Of a value in a binary body: float64, little-endian."""


@dataclass(frozen=True, eq=False)
class Reweights:
    """What a request says of the errors' probabilities."""

    values: Values
    """(errors,) for all shots, or (shots, errors)."""
    meaning: Meaning
    """The probabilities, or factors for those of the detector error model."""

    def probabilities(self, priors: Values, *, shots: int) -> Values:
        """The probability of each error, (1, errors) for all shots or (shots, errors).

        Args:
            priors: (errors,), those of the detector error model.
            shots: in the request.

        Raises:
            InvalidShotsError: another number of errors or of shots, or what makes no probabilities.
        """
        values, errors = self.values, len(priors)
        if values.shape not in ((errors,), (shots, errors)):
            raise _wrong(
                f"reweights of the shape {list(values.shape)}; the detector error model has {errors} errors, so send "
                f"[{errors}] for all shots or [{shots}, {errors}]"
            )
        found = np.atleast_2d(values * priors if self.meaning == "factors" else values)
        wrong = np.argwhere(~((found >= 0) & (found <= 1)))  # NaN is neither
        if len(wrong):
            row, error = map(int, wrong[0])
            raise _wrong(
                f"reweights make {found[row, error]} the probability of error {error} of shot {row}; it must be from "
                "0 to 1"
            )
        return found


def split_body(body: bytes, *, form: Form, shot_bytes: int, errors: int) -> tuple[bytes, Values]:
    """Takes the values from behind the shots of a binary body.

    Args:
        body: shots, and then the values row by row.
        form: whether there is one row, or one a shot.
        shot_bytes: of a packed shot.
        errors: values in a row.

    Raises:
        InvalidShotsError: the body is too short, or has no whole number of both.
    """
    row = VALUE_BYTES * errors
    if form == "all":
        cut = len(body) - row
    else:
        shots, rest = divmod(len(body), shot_bytes + row)
        cut = -1 if rest else shots * shot_bytes
    if cut <= 0:
        raise _wrong(
            f"{len(body)} bytes are no shots of {shot_bytes} bytes with reweights behind them: {errors} values of "
            f"{VALUE_BYTES} bytes for {'all shots' if form == 'all' else 'each shot'}"
        )
    values = np.frombuffer(body[cut:], dtype="<f8").astype(np.float64)
    return body[:cut], values if form == "all" else values.reshape(-1, errors)


def listed_values(listed: list[Any]) -> Values:
    """The values of lists of JSON.

    Raises:
        InvalidShotsError: neither numbers, nor lists of as many numbers each.
    """
    rows = listed if listed and isinstance(listed[0], list) else [listed]
    if len({len(row) if isinstance(row, list) else -1 for row in rows}) != 1 or not isinstance(rows[0], list):
        raise _wrong("reweights are a list of numbers, or a list of lists of as many numbers each")
    if not set(map(type, (value for row in rows for value in row))) <= {int, float}:
        raise _wrong("reweights are numbers, and nothing else")
    try:
        values = np.array(rows, dtype=np.float64)
    except OverflowError:
        raise _wrong("reweights are numbers that a float64 can hold") from None
    return values if rows is listed else values[0]


def _wrong(detail: str) -> InvalidShotsError:
    return InvalidShotsError(detail, flaws=[Flaw.in_body(detail, "reweights")])
