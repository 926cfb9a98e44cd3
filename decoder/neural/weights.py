"""Networks: new ones by their configuration, trained ones as safetensors files with their provenance in the header."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from decoder.neural.blue import BlueNetwork
from decoder.neural.calibration import Calibration
from decoder.neural.config import Architecture, ModelConfig
from decoder.neural.model import RecurrentTransformer
from decoder.neural.network import Network
from simulation.codes import parse_code
from simulation.files import atomic_write

FORMAT = "tandem-weights-2"
CHECKSUM = "tensors_sha256"
"""Of a header: the checksum of all tensors."""
MAX_ROUNDS = 1000
SHIPPED = Path(__file__).parent.parent / "weights"
FOR_ALL = "bb"
"""The name of the shipped weights that are for every bivariate bicycle code."""
OLD_SETTINGS = ("bp_iterations", "bp_solutions")
"""Of networks that read another belief propagation, which is gone."""
ARCHITECTURES: dict[Architecture, Callable[[ModelConfig], Network]] = {
    "tandem": RecurrentTransformer,
    "blue": BlueNetwork,
}


@dataclass(frozen=True)
class WeightsInfo:
    """What a weights file says of itself."""

    path: Path
    sha256: str
    config: ModelConfig
    codes: tuple[str, ...]
    """The codes that it was trained on."""
    bases: str
    """The memory bases that the network was trained on, such as "ZX"."""
    rounds: tuple[int, ...]
    """The numbers of rounds that it was trained on."""
    calibration: Calibration
    """Makes probabilities of the scores; fitted on held-out shots."""
    provenance: Mapping[str, Any]
    """How it was trained: shots, steps, seconds, error rates, seed, versions, validation."""


def build_network(config: ModelConfig) -> Network:
    """A network with new weights, drawn from torch's global generator."""
    return ARCHITECTURES[config.architecture](config)


def shipped_weights(code_id: str) -> Path:
    """The weights in the package for a code: those for it alone if there are any, else those for all codes."""
    of_code = SHIPPED / f"{code_id}.safetensors"
    return of_code if of_code.is_file() else SHIPPED / f"{FOR_ALL}.safetensors"


def weights_named(name: str) -> Path:
    """The file of that name, or the shipped weights of the code with that id."""
    path = Path(name)
    return path if path.suffix or path.is_file() else shipped_weights(name)


def save_weights(
    path: Path,
    model: Network,
    *,
    bases: str,
    rounds: tuple[int, ...],
    calibration: Calibration,
    provenance: Mapping[str, Any],
    codes: tuple[str, ...] = (),
) -> None:
    """Writes a network atomically; `codes` are those that it was trained on, its own one if none are given."""
    header = {
        "format": FORMAT,
        "config": asdict(model.config),
        "codes": list(codes or (model.config.code,)),
        "operators": model.geometry.code.logical_orbits().tolist(),
        "bases": bases,
        "rounds": list(rounds),
        "temperature": calibration.temperature,
        "power": calibration.power,
        "provenance": dict(provenance),
    }
    write_safetensors(path, header, model.state_dict())


def load_weights(path: Path, *, code: str | None = None) -> tuple[Network, WeightsInfo]:
    """Reads a network onto the CPU, in evaluation mode.

    Args:
        path: the file.
        code: the code that it is to decode, by its id or as l,m,A,B; None for the one that the file names. The weights
            of networks that judge are for all codes; those of others are for one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a weights file, corrupted, truncated, of another version of the format, or for another code.
    """
    header, tensors = read_safetensors(path)
    try:
        if header["format"] != FORMAT:
            raise ValueError(f"{path}: format {header['format']!r} is not {FORMAT!r}; train or download it again")
        config = _config(header["config"], code, path)
        info = WeightsInfo(
            path=path,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            config=config,
            codes=tuple(str(c) for c in header.get("codes", [header["config"].get("code", config.code)])),
            bases=str(header["bases"]),
            rounds=tuple(sorted({int(r) for r in header["rounds"]})),
            calibration=Calibration(_number(header["temperature"]), _number(header["power"])),
            provenance=header["provenance"],
        )
        operators = header["operators"]
        if len(info.rounds) > MAX_ROUNDS or not all(0 < rounds <= MAX_ROUNDS for rounds in info.rounds):
            raise ValueError(f"{path}: trained on other numbers of rounds than 1 to {MAX_ROUNDS}, the header says")
    except OverflowError as error:
        raise ValueError(f"{path}: the header holds a number that is none ({error})") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: the header lacks or garbles {error}; it is no Tandem weights file") from None
    with torch.device("meta"):  # without memory for its weights, until it is known that the file holds as many
        check_tensors(build_network(config), tensors, path)
    model = build_network(config)
    if not config.judges and model.geometry.code.logical_orbits().tolist() != operators:
        raise ValueError(f"{path}: trained for other logical operators of {config.code} than this version has")
    load_tensors(model, tensors, path)
    return model.eval(), info


def _config(settings: dict[str, Any], code: str | None, path: Path) -> ModelConfig:
    """The settings in a file's header, for a code."""
    settings = {"judges": False, **settings}  # earlier versions had no networks that judge
    old = [settings.pop(name, 0) for name in OLD_SETTINGS]
    if old[0]:
        raise ValueError(
            f"{path} reads a belief propagation that is no longer there (bp_iterations={old[0]}): train it again with "
            "`tandem train`, or leave the weights out for those that are shipped"
        )
    unknown = set(settings) - {field.name for field in fields(ModelConfig)}
    if unknown:
        raise ValueError(f"unknown model settings {sorted(unknown)}; the weights are of a newer version")
    config = ModelConfig(**settings)
    if code is None or parse_code(code) == parse_code(config.code):
        return config
    if not config.judges:
        raise ValueError(f"{path} was trained for {config.code}, not for {code}")
    return replace(config, code=code)


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r}, which must be a number")
    return float(value)


def load_tensors(model: Network, tensors: dict[str, Tensor], path: Path) -> None:
    """Copies tensors into a model of the same shape.

    Raises:
        ValueError: missing, superfluous, misshapen or non-finite tensors.
    """
    check_tensors(model, tensors, path)
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ValueError(f"{path}: {broken[0]} holds values that are not finite; the file is corrupted")
    model.load_state_dict(tensors)


def check_tensors(model: Network, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Compares the names and shapes of tensors with those of a model.

    Raises:
        ValueError: missing, superfluous or misshapen tensors.
    """
    expected = model.state_dict()
    wrong = sorted(
        name
        for name in expected.keys() | tensors.keys()
        if name not in expected or name not in tensors or expected[name].shape != tensors[name].shape
    )
    if wrong:
        raise ValueError(
            f"{path}: tensors {', '.join(wrong[:4])} do not fit a {model.config.code} network of width "
            f"{model.config.width}; the file is corrupted or for another network"
        )


def write_safetensors(path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Writes what `read_safetensors` reads, atomically: after a kill at any moment there is a complete file."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = json.dumps({**header, CHECKSUM: _checksum(contiguous)})
    with atomic_write(path, force=True) as partial:
        partial.write_bytes(save(contiguous, metadata={"tandem": content}))


def read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The JSON header under "tandem" and all tensors; nothing is ever unpickled.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not safetensors, truncated, or without our header.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no weights file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(metadata["tandem"])
        if not isinstance(header, dict):
            raise ValueError("the header is no object")
        if header.pop(CHECKSUM, None) not in (None, _checksum(tensors)):  # earlier versions wrote none
            raise ValueError("the tensors are not those that were written")
    except (SafetensorError, KeyError, ValueError, struct.error, RuntimeError, RecursionError) as error:
        raise ValueError(f"{path}: no Tandem safetensors file, or truncated or corrupted ({error})") from None
    return header, tensors


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names, types, shapes and values of tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
