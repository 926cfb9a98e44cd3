"""Circuits and detector error models that clients have sent: kept by hash, in files, each for the key that sent it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from contextlib import ExitStack, suppress
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from decoder.classical.explained import FixedParities
from decoder.inspection import inspect
from decoder.processes import ChildEndedError, ChildProcess
from service.errors import (
    ConflictError,
    InvalidExperimentError,
    InvalidShotsError,
    NotStoredError,
    UnknownExperimentError,
)
from service.folders import own_folder
from service.models.building import Builder, SharedBuilds
from service.models.memory import Room, taken
from service.settings import Settings
from service.telemetry.record import current_record
from service.wire.schemas import ExperimentRecord
from simulation.bits import PackedBits, packed_size, unpack_bits
from simulation.files import Kind, atomic_write, file_version
from simulation.foreign.experiment import ForeignExperiment, parse
from simulation.foreign.kept import KeptExperiment
from simulation.foreign.layers import layer_of_detectors
from simulation.shots.sampling import sample

MOST_DETECTORS, MOST_OBSERVABLES, MOST_LAYERS = 200_000, 10_000, 10_000
"""Of an experiment."""
MOST_EXPLAINED = 20_000
"""Detectors of an experiment whose shots are refused if no error explains them; more would take long to look into."""
MOST_WAITING = 16
"""Experiments that may wait to be read."""
SAMPLES = 32
"""Shots that are kept of an experiment."""
IDLE_BYTES = 2**28
"""Most memory that the process which reads experiments may keep while it has nothing to read. Python with its libraries
takes half of that, and starting them again two seconds."""
NICENESS = 3
"""Of the processes that read experiments: the event loop and the decoders go first; see `service.http.parsing`."""
NO_KEY = "_"
"""Where the experiments of requests without a key are; no key has such a name."""

_ID = re.compile("[0-9a-f]{64}")


class _Entry(ExperimentRecord):
    """What is kept of an experiment beside its text."""

    order: list[int] | None
    """The detectors layer by layer, if that is not their own order."""
    samples_b8: str
    """Base64 of a few shots, which warm its decoders up, and show how sure these are."""
    fixed: list[tuple[bool, list[int]]] | None = None
    """See `FixedParities.lists`; None if not looked for, as by versions that kept none."""


class Kept:
    """An experiment that is kept.

    Args:
        path: of its record, beside which its text lies.
    """

    def __init__(self, path: Path) -> None:
        entry = _Entry.model_validate_json(path.read_bytes())
        facts = entry.inspection
        self.record = ExperimentRecord(**{name: getattr(entry, name) for name in ExperimentRecord.model_fields})
        self.experiment = KeptExperiment(
            path=path.with_suffix(".txt"),
            kind=facts.kind,
            sha256=facts.sha256,
            num_detectors=facts.detectors,
            num_observables=facts.observables,
        )
        self.order: npt.NDArray[np.int64] | None = None if entry.order is None else np.array(entry.order)
        """(detectors,): the detectors layer by layer; None where that is their own order."""
        self._fixed = FixedParities.of_lists(entry.fixed, detectors=facts.detectors) if entry.fixed else None
        packed = np.frombuffer(base64.b64decode(entry.samples_b8), dtype=np.uint8)
        self.samples: PackedBits = packed.reshape(-1, packed_size(facts.detectors))
        """A few shots."""

    async def require_explained(self, shots: PackedBits) -> None:
        """Refuses shots that no error explains, as far as that was looked for; beside the event loop.

        Args:
            shots: bit-packed uint8 (shots, ceil(detectors / 8)).

        Raises:
            InvalidShotsError: there is such a shot.
        """
        if (fixed := self._fixed) is None:
            return
        try:
            await asyncio.to_thread(lambda: fixed.require_explained(unpack_bits(shots, self.experiment.num_detectors)))
        except ValueError as error:
            raise InvalidShotsError(str(error)) from None


class ExperimentStore:
    """The experiments of all keys. Belongs to one event loop; processes that share a directory share what is in it.

    Args:
        settings: bound what is kept.
        room: the memory that reading may take.
    """

    def __init__(self, settings: Settings, room: Room) -> None:
        self._most = settings.max_experiments
        self._seconds = settings.build_timeout_seconds
        self._room = room
        self._held = ExitStack()
        self._directory = settings.experiments_dir or self._held.enter_context(own_folder())
        self._builder = Builder(seconds=self._seconds, most=MOST_WAITING)
        self._reading: SharedBuilds[tuple[Path, str, Kind], str] = SharedBuilds(self._builder)
        self._child: ChildProcess | None = None

    def find(self, experiment_id: str) -> Kept:
        """An experiment of the key of the request at work.

        Raises:
            UnknownExperimentError: that key has none of this id.
        """
        path = _folder(self._directory) / f"{experiment_id}.json"
        try:
            if _ID.fullmatch(experiment_id):
                return _kept(path, file_version(path))
        except FileNotFoundError:
            pass
        raise UnknownExperimentError(
            f"there is no experiment {experiment_id[:64]!r}; send it to /v1/experiments, which answers its id"
        )

    def all(self) -> list[Kept]:
        """The experiments of the key of the request at work, the oldest first."""
        found = []
        for path in _folder(self._directory).glob("*.json"):
            with suppress(FileNotFoundError):  # it is being removed
                found.append((file_version(path), _kept(path, file_version(path))))
        return [kept for _, kept in sorted(found, key=lambda pair: (pair[0], pair[1].record.id))]

    async def add(self, content: bytes, *, kind: Kind) -> tuple[Kept, bool]:
        """Reads an experiment in a process of its own, beside the event loop, and keeps it.

        Args:
            content: the text in UTF-8.
            kind: a circuit or a model.

        Returns:
            The experiment, and whether it is new.

        Raises:
            InvalidExperimentError: it is none, or none that can be decoded, or reading it takes too long or too much.
            ConflictError: the key has as many as it may have.
            BusyError: too many wait to be read, or there is no memory for one more.
            NotStoredError: there is no room for its files.
            DecodeTimeoutError: it is not read in time; it is kept nevertheless, if it can be.
        """
        folder = _folder(self._directory)
        known = {kept.record.id for kept in self.all()}
        key = (folder, hashlib.sha256(content).hexdigest(), kind)
        read = partial(self._read, content, kind, folder)
        experiment_id = await self._reading.get(key, read, seconds=self._seconds)
        return self.find(experiment_id), experiment_id not in known

    def remove(self, experiment_id: str) -> None:
        """Keeps an experiment of the key of the request at work no longer.

        Raises:
            UnknownExperimentError: that key has none of this id.
        """
        path = self.find(experiment_id).experiment.path
        for name in (path.with_suffix(".json"), path):  # without its record it is gone
            name.unlink(missing_ok=True)

    def close(self) -> None:
        """Ends what is being read, and removes what was kept in a directory of its own."""
        self._builder.close()
        if self._child is not None:
            self._child.close(for_good=True)
        self._held.close()

    def _read(self, content: bytes, kind: Kind, folder: Path) -> str:
        """Has a child process read and keep an experiment; in the builder's thread."""
        child = self._child = self._child or ChildProcess(
            size=1, patience_seconds=self._seconds, niceness=NICENESS, max_bytes=self._room.most_bytes
        )
        try:
            with self._room.take():
                return child.call(keep, content, kind, folder, most=self._most)
        except TimeoutError:
            raise InvalidExperimentError(f"it takes longer than {self._seconds:g} s to be read; send less") from None
        except (ChildEndedError, MemoryError):
            raise InvalidExperimentError("it takes more memory than there is to be read; send less") from None
        except ValueError as error:
            raise InvalidExperimentError(str(error)) from None
        except FileExistsError as error:
            raise ConflictError(str(error)) from None
        except OSError as error:
            raise NotStoredError(f"the experiment cannot be kept: {error.strerror or error}") from error
        finally:
            if self._builder.pending == 1 and taken([child.pid or 0]) > IDLE_BYTES:  # nobody has to wait for a new one
                self._child = None
                child.close()


def keep(content: bytes, kind: Kind, folder: Path, *, most: int) -> str:
    """Reads an experiment and writes it and its record into a folder; runs in a child process.

    Returns:
        Its id.

    Raises:
        ValueError: it is none, or none that can be decoded.
        FileExistsError: there are as many as there may be.
        OSError: it cannot be written.
    """
    hint = "a circuit is sent with kind=circuit, a detector error model with kind=dem"
    source = parse(content, kind=kind, name="what was sent", hint=hint)
    _check_count(source.num_detectors, MOST_DETECTORS, "detectors")
    _check_count(source.num_observables, MOST_OBSERVABLES, "observables")
    experiment = ForeignExperiment.of(source, name="what was sent")
    path = folder / f"{experiment.sha256}.json"
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return experiment.sha256
    if len(list(folder.glob("*.json"))) >= most:
        raise FileExistsError(f"this key has {most} experiments, as many as it may; delete one of them first")
    layers = layer_of_detectors(source)
    _check_count(len(np.bincount(layers)), MOST_LAYERS, "layers")
    order = np.argsort(layers, kind="stable")
    entry = _Entry(
        id=experiment.sha256,
        bytes=len(experiment.text) + 1,
        layers=np.bincount(layers).tolist(),
        inspection=inspect(experiment),
        order=None if (np.diff(order) > 0).all() else order.tolist(),
        samples_b8=base64.b64encode(sample(source, shots=SAMPLES, seed=0).detection_events.tobytes()).decode(),
        fixed=FixedParities.of(experiment.fault_model).lists() if source.num_detectors <= MOST_EXPLAINED else None,
    )
    for file, text in ((path.with_suffix(".txt"), f"{experiment.text}\n"), (path, entry.model_dump_json())):
        with atomic_write(file, force=True) as partial_path:
            partial_path.write_text(text, encoding="utf-8")
    return experiment.sha256


def _check_count(count: int, most: int, what: str) -> None:
    if count > most:
        raise ValueError(f"what was sent has {count} {what}, and at most {most} are kept")


def kept_of(experiment: KeptExperiment) -> Kept:
    """What is known of an experiment that is kept.

    Raises:
        UnknownExperimentError: it is kept no longer.
    """
    path = experiment.path.with_suffix(".json")
    try:
        return _kept(path, file_version(path))
    except FileNotFoundError:
        raise UnknownExperimentError(f"experiment {experiment.sha256} was deleted; send it again") from None


def _folder(directory: Path) -> Path:
    """That of the key of the request at work."""
    record = current_record()
    return directory / (NO_KEY if record is None or record.key is None else record.key.name)


@lru_cache(256)
def _kept(path: Path, version: tuple[int, ...]) -> Kept:
    """Reads a record, once for each version of its file."""
    return Kept(path)
