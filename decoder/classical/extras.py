"""Packages that only some decoders need, installed as optional extras of this one."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True, kw_only=True)
class Extra:
    """An optional extra of the package `tandem-decoder`."""

    name: str
    """As in ``pip install 'tandem-decoder[name]'``."""
    package: str
    """The package that it installs."""
    module: str
    """What that is imported as."""

    def require(self, user: str) -> None:
        """Imports the package.

        Args:
            user: what needs it, as a message begins.

        Raises:
            ValueError: it is not installed.
        """
        try:
            import_module(self.module)
        except ImportError:
            raise ValueError(
                f"{user} needs the package {self.package}: pip install 'tandem-decoder[{self.name}]'"
            ) from None
