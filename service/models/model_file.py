"""The models of a service as a file: what every process of it goes by, and what outlives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from jiter import from_json
from pydantic import TypeAdapter, ValidationError

from service.settings import ModelSettings
from simulation.files import file_version, write_text

Models = tuple[ModelSettings, ...]

LOCK_SECONDS = 10.0
"""How long to wait for another process that writes the file."""

_MODELS = TypeAdapter(Models)


@dataclass(frozen=True)
class ModelFile:
    """A JSON list of models. Readers see the old list or the new one; writers take turns."""

    path: Path

    def read(self) -> Models:
        """Reads the models.

        Raises:
            ValueError: the file does not hold models.
            OSError: the file cannot be read.
        """
        try:
            content = self.path.read_bytes()
            models = _MODELS.validate_json(content)
            from_json(content, catch_duplicate_keys=True)  # pydantic would take the last of two values
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{self.path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error
        if len({model.id for model in models}) < len(models) or not models:
            raise ValueError(f"{self.path}: a list of at least one model, each with an id of its own, is needed")
        return models

    def create(self, models: Sequence[ModelSettings]) -> None:
        """Writes models, unless the file exists.

        Raises:
            OSError: the file cannot be written.
        """
        with self._locked(), suppress(FileExistsError):
            self._write(models, force=False)

    def update(self, change: Callable[[dict[str, ModelSettings]], object]) -> None:
        """Changes models by id.

        Args:
            change: is given the models of the file as they are now, whoever wrote it. What it raises leaves them.

        Raises:
            ValueError, OSError: the file cannot be read or written, or would hold no model any more.
        """
        with self._locked():
            models = {model.id: model for model in self.read()}
            change(models)
            if not models:
                raise ValueError(f"{self.path}: the last model cannot be removed")
            self._write(tuple(models.values()), force=True)

    def version(self) -> tuple[int, ...]:
        """Differs after each change; empty while there is no file."""
        try:
            return file_version(self.path)
        except OSError:
            return ()

    def _write(self, models: Sequence[ModelSettings], *, force: bool) -> None:
        content = _MODELS.dump_json(tuple(models), indent=2, exclude_defaults=True).decode()
        write_text(self.path, f"{content}\n", force=force)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=LOCK_SECONDS):
            yield
