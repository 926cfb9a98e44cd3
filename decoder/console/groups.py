"""Groups of options: a command takes a dataclass, and its user sees an option for each of its fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_origin, get_type_hints


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces each parameter that is a dataclass by its fields, so that typer makes options of them.

    Fields whose type is ``Annotated[..., typer.Option(...)]`` become options with the field's default, in the place of
    the parameter; the other fields keep their defaults. The command is called with the dataclasses made from the
    options' values, and what their ``__post_init__`` raises is the command's to raise.

    Args:
        command: the function to hand to typer, all parameters by keyword. No two of its groups share a name.

    Returns:
        A function of the options alone, which typer takes in the command's place.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, tuple[Any, list[str]]] = {}
    parameters: list[Parameter] = []
    for name, parameter in signature(command).parameters.items():
        group = hints[name]
        if not is_dataclass(group):
            parameters.append(parameter.replace(annotation=group))
            continue
        types = get_type_hints(group, include_extras=True)
        options = [field for field in fields(group) if get_origin(types[field.name]) is Annotated]
        parameters += [_parameter(field, types[field.name]) for field in options]
        groups[name] = group, [field.name for field in options]

    @wraps(command)
    def run(**values: Any) -> None:
        made = {
            name: group(**{option: values.pop(option) for option in options})
            for name, (group, options) in groups.items()
        }
        command(**made, **values)

    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameter(field: Field[Any], annotation: Any) -> Parameter:
    default = Parameter.empty if field.default is MISSING else field.default
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
