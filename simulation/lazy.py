"""Names that a package offers and imports when they are first asked for, as some of them take seconds to import."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

DISTRIBUTION = "tandem-decoder"


def offer(package: str, homes: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's ``__getattr__`` and ``__dir__`` (PEP 562), which offer ``__version__`` too.

    Args:
        package: its ``__name__``.
        homes: the names that it offers, by the modules that they are in.
    """
    home_of = {name: module for module, names in homes.items() for name in names}

    def getattribute(name: str) -> Any:
        value: Any
        if name == "__version__":
            from importlib.metadata import version

            value = version(DISTRIBUTION)
        elif name in home_of:
            value = getattr(importlib.import_module(home_of[name]), name)
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    def directory() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of, "__version__"})

    return getattribute, directory
