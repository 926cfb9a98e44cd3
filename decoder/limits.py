"""What dataclasses of settings check alike: the choices and the least values of their fields."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin, get_type_hints


def check_fields(settings: Any, **least: float) -> None:
    """Checks the fields of a dataclass: those that are literals by their choices, and others by their least values.

    Args:
        settings: an instance of a dataclass.
        least: by the name of a field, the least value that it may have beside None.

    Raises:
        ValueError: a value is none of the choices, or below the least one.
    """
    for name, kind in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            raise ValueError(f"{name}={value!r} must be one of {', '.join(get_args(kind))}")
        if value is not None and name in least and not value >= least[name]:
            raise ValueError(f"{name}={value} must be at least {least[name]}")
