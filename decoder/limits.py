"""What dataclasses of settings check alike: the types of their fields, their choices, and the least and most values."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_origin, get_type_hints

_NUMBERS: Mapping[Any, type] = {int: Integral, float: Real}


def check_fields(settings: Any, most: Mapping[str, float] | None = None, **least: float) -> None:
    """Checks the fields of a dataclass: those that are literals by their choices, and others by their values.

    Args:
        settings: an instance of a dataclass.
        most: by the name of a field, the most that it may be beside None.
        least: likewise the least.

    Raises:
        ValueError: a value is none of the choices, no number where there should be one, or out of its range.
    """
    for name, kind in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            raise ValueError(f"{name}={value!r} must be one of {', '.join(get_args(kind))}")
        number = _NUMBERS.get(kind)
        if number is not None and (isinstance(value, bool) or not isinstance(value, number)):
            raise ValueError(f"{name}={value!r} must be {'a whole' if kind is int else 'a'} number")
        if value is not None and most and name in most and not value <= most[name]:
            raise ValueError(f"{name}={value} must be at most {most[name]}")
        if value is not None and name in least and not value >= least[name]:
            raise ValueError(f"{name}={value} must be at least {least[name]}")
