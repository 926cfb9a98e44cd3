"""Training settings from recipes, TOML files and words of the command line, checked by name and type."""

from __future__ import annotations

import ast
import inspect
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

from decoder.neural.config import ModelConfig
from decoder.training.config import RECIPES, TrainingConfig, dotted


def read_settings(source: str) -> dict[str, Any]:
    """Reads a TOML file of settings, or the recipe of that name.

    Raises:
        ValueError: it is not TOML.
        OSError: it cannot be read.
    """
    path = Path(source)
    if not path.is_file():
        if source not in RECIPES:
            raise FileNotFoundError(f"there is no file {path}, and no recipe of that name ({', '.join(RECIPES)})")
        path = RECIPES[source]
    try:
        return dotted(tomllib.loads(path.read_text(encoding="utf-8")))
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
    return dotted(values)


def with_recipe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Adds what the recipe of the code says and `settings`, with dotted names, do not.

    There is one for a judge, and one for a network that decodes alone, whose name ends in "-alone".
    """
    code = str(settings.get("model.code", ModelConfig.code))
    recipe = code if settings.get("model.judges", True) else f"{code}-alone"
    return (read_settings(recipe) if recipe in RECIPES else {}) | dict(settings)


def with_weights(settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Adds the shape of the network in the weights to start from, if there are any, and what the recipe says.

    Returns:
        The settings, and a line for all of them that make another network than the one in the weights.

    Raises:
        ValueError: they are no weights.
        OSError: they cannot be read.
    """
    name = with_recipe(settings).get("init_from", "")
    if not name:
        return with_recipe(settings), []
    from decoder.neural.weights import load_weights, weights_named

    shape = dotted({"model": asdict(load_weights(weights_named(str(name)))[1].config)})
    return with_recipe(shape | dict(settings)), changes(shape, settings, of=f"in the weights {name}")


def changes(before: Mapping[str, Any], settings: Mapping[str, Any], *, of: str) -> list[str]:
    """A line that names the settings that are other ones than before, if there are any.

    Args:
        before: settings by dotted names.
        settings: other ones; those that `before` lacks are none.
        of: where those before are.
    """
    values = {name: (json.loads(json.dumps(before[name])), value) for name, value in settings.items() if name in before}
    other = [f"{name}={new!r} instead of {old!r}" for name, (old, new) in values.items() if old != new]
    return [f"other settings than {of}: {', '.join(other)}"] if other else []


def training_config(settings: Mapping[str, Any]) -> TrainingConfig:
    """Makes a configuration of settings by name; what is not named keeps its default.

    Raises:
        ValueError: an unknown name, or a value of the wrong type or out of range.
    """
    from pydantic import TypeAdapter, ValidationError

    settings, docs = dotted(settings), setting_docs()
    for name in settings:
        if name not in docs:
            short = {known.removeprefix("model."): known for known in docs}
            [nearest] = get_close_matches(name, [*docs, *short], n=1, cutoff=0.0)
            raise ValueError(
                f"unknown training setting {name!r}; the nearest is {nearest!r} "
                "('tandem train --print-config' lists all)"
            )
    of_model = {name.removeprefix("model."): value for name, value in settings.items() if name.startswith("model.")}
    own = {name: value for name, value in settings.items() if not name.startswith("model.")}
    lists = {name for name, default in vars(TrainingConfig()).items() if isinstance(default, tuple)}
    own |= {name: [own[name]] for name in lists & own.keys() if isinstance(own[name], int | float | str)}
    try:
        return TypeAdapter(TrainingConfig).validate_python(own | {"model": of_model})
    except ValidationError as error:
        details = error.errors(include_url=False)
    raise ValueError("; ".join(_describe(detail) for detail in details))


def setting_docs() -> dict[str, str]:
    """What each setting means, by its dotted name: the docstrings under the fields of the two configurations."""
    of_model = {f"model.{name}": text for name, text in _field_docs(ModelConfig)}
    return of_model | {name: text for name, text in _field_docs(TrainingConfig) if name != "model"}


def as_toml(config: TrainingConfig) -> str:
    """A configuration as a file that `read_settings` reads, with what each setting means."""
    values, lines = dotted(asdict(config)), []
    for name, text in setting_docs().items():
        value = values[name]
        lines += [f"# {text}", f"# {name} =" if value is None else f"{name} = {_toml_value(value)}"]
    return "\n".join(lines) + "\n"


def _field_docs(config: type) -> Iterable[tuple[str, str]]:
    [definition] = ast.parse(inspect.getsource(config)).body
    assert isinstance(definition, ast.ClassDef)
    for field, text in pairwise(definition.body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(doc))):
                yield name, doc


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
    if detail["type"] == "value_error":  # of a configuration as a whole: it names the setting
        return message
    return f"training setting {'.'.join(map(str, detail['loc']))}={detail['input']!r}: {message}"
