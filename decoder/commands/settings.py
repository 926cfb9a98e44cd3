"""Training settings from a TOML file and from words of the command line, checked by name and type."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decoder.training.config import TrainingConfig


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
        ValueError: it is not TOML.
        OSError: it cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not TOML: {error}") from None


def read_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """Reads ``name=value`` pairs, values as in TOML; strings need no quotes and lists no brackets.

    Raises:
        ValueError: no such pair.
    """
    values = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            raise ValueError(f"--set takes name=value, not {pair!r}; for example --set width=64")
        values[name.strip()] = _read_value(text.strip())
    return values


def training_config(values: Mapping[str, Any]) -> TrainingConfig:
    """Makes a configuration of settings by name; what is not named keeps its default.

    Raises:
        ValueError: an unknown name, or a value of the wrong type or out of range.
    """
    from pydantic import TypeAdapter, ValidationError

    from decoder.training.config import TrainingConfig

    names = [field.name for field in fields(TrainingConfig)]
    for name in values:
        if name not in names:
            [nearest] = get_close_matches(name, names, n=1, cutoff=0.0)
            raise ValueError(
                f"unknown training setting {name!r}; the nearest is {nearest!r} "
                "('tandem train --print-config' lists all)"
            )
    try:
        return TypeAdapter(TrainingConfig).validate_python(dict(values))
    except ValidationError as error:
        details = error.errors(include_url=False)
    raise ValueError("; ".join(_describe(detail) for detail in details))


def as_toml(config: TrainingConfig) -> str:
    """A configuration as a file that `read_toml` reads, with what each setting means."""
    lines = []
    for field in fields(config):
        value = getattr(config, field.name)
        lines.append(f"# {field.metadata['help']}")
        lines.append(f"# {field.name} =" if value is None else f"{field.name} = {_toml_value(value)}")
    return "\n".join(lines) + "\n"


def _read_value(text: str) -> Any:
    for form in (text, f"[{text}]" if "," in text else text):
        try:
            return tomllib.loads(f"value = {form}")["value"]
        except tomllib.TOMLDecodeError:
            continue
    return text


def _toml_value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_toml_value(part) for part in value)}]"
    return json.dumps(value)  # of strings, booleans and finite numbers TOML and JSON write the same


def _describe(detail: Mapping[str, Any]) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ")
    name = ".".join(str(part) for part in detail["loc"])
    return f"training setting {name}={detail['input']!r}: {message}" if name else message
