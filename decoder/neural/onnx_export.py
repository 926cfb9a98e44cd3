"""The round step and the readout of a network as ONNX files, for other runtimes, checked against torch."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from decoder.neural.backends.events import as_tensor
from decoder.neural.beliefs import EVIDENCE, Beliefs
from decoder.neural.decoder import NeuralDecoder
from decoder.neural.geometry import NETWORK_BASES
from decoder.neural.model import RecurrentTransformer
from decoder.neural.network import Phase
from simulation.files import atomic_write

STEP, READOUT, DESCRIPTION = "step.onnx", "readout.onnx", "network.json"
OPSET = 18
TOLERANCE = 1e-3
"""Of log-odds, over the largest of them: rounding in float32, in another order, gives less than a tenth of it."""
_BATCH = 256


class RoundStep(nn.Module):
    """`RecurrentTransformer.step` with basis and phase as tensors."""

    def __init__(self, model: RecurrentTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, hidden: Tensor, events: Tensor, basis: Tensor, phase: Tensor, beliefs: Tensor | None = None
    ) -> Tensor:
        return self.model.step(
            hidden,
            events,
            basis=basis,  # type: ignore[arg-type]
            phase=phase,  # type: ignore[arg-type]
            spectra=self.model.spectra(),
            beliefs=beliefs,
        )


Run = Callable[[dict[str, Tensor]], Tensor]
"""Either part, from its inputs by name to its output."""


@dataclass(frozen=True)
class Check:
    """What the check against torch found."""

    shots: int
    largest_difference: float
    """Of log-odds."""
    largest: float
    """The largest log-odds themselves."""
    differing_predictions: int

    @property
    def is_rounding(self) -> bool:
        """Whether the log-odds differ by no more than rounding explains."""
        return self.largest_difference <= TOLERANCE * self.largest


def require_onnx() -> None:
    """Checks that the optional packages are installed.

    Raises:
        ValueError: they are not.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"exporting to ONNX needs {', '.join(missing)}; install the extra: pip install 'tandem-decoder[onnx]'"
        )


def exportable(decoder: NeuralDecoder) -> RecurrentTransformer:
    """The decoder's network.

    Raises:
        ValueError: it has another architecture than tandem.
    """
    if not isinstance(decoder.model, RecurrentTransformer):
        raise ValueError(
            f"only networks of architecture tandem have a round step to export, not {decoder.model.config.architecture}"
        )
    return decoder.model


def step_inputs(model: RecurrentTransformer, *, shots: int) -> dict[str, Tensor]:
    """Examples of the step's inputs."""
    cells, width = model.geometry.code.cells, model.config.width
    inputs = {
        "hidden": torch.randn(cells, shots, width),
        "events": torch.zeros(2, cells, shots),
        "basis": torch.tensor(0),
        "phase": torch.tensor(int(Phase.MIDDLE)),
    }
    if model.propagation is not None:
        inputs["beliefs"] = torch.zeros(cells, shots, model.propagation.columns.total)
    return inputs


def readout_inputs(model: RecurrentTransformer, *, shots: int) -> dict[str, Tensor]:
    """Examples of the readout's inputs."""
    inputs = {"h": torch.randn(model.geometry.code.cells, shots, model.config.width)}
    if model.propagation is not None:
        inputs["evidence"] = torch.zeros(shots, len(model.geometry.output_supports), len(EVIDENCE))
    return inputs


_SHOTS_AXIS = {"hidden": 1, "events": 2, "basis": None, "phase": None, "beliefs": 1, "h": 1, "evidence": 0}


def export(decoder: NeuralDecoder, out: Path, *, force: bool = False) -> None:
    """Writes the step, the readout and their description into a directory.

    Raises:
        ValueError: the optional packages are missing, or the network has another architecture.
        FileExistsError: a file is there already, without force.
    """
    require_onnx()
    model = exportable(decoder)
    out.mkdir(parents=True, exist_ok=True)
    parts = (
        (STEP, RoundStep(model), step_inputs(model, shots=2)),
        (READOUT, model.readout, readout_inputs(model, shots=2)),
    )
    for name, part, inputs in parts:
        with atomic_write(out / name, force=force) as partial:
            _export_part(part, inputs, partial, output="log_odds" if name == READOUT else "next_hidden")
    with atomic_write(out / DESCRIPTION, force=force) as partial:
        partial.write_text(json.dumps(describe(decoder), indent=2) + "\n", encoding="utf-8")


def _export_part(part: nn.Module, inputs: dict[str, Tensor], path: Path, *, output: str) -> None:
    shots = torch.export.Dim("shots", min=1)
    shapes = {name: {} if _SHOTS_AXIS[name] is None else {_SHOTS_AXIS[name]: shots} for name in inputs}
    # The exporter warns of its own use of what is deprecated, and prints how far it has come.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            _write(part, inputs, shapes, path, output=output)
    finally:
        logger.setLevel(level)


def _write(part: nn.Module, inputs: dict[str, Tensor], shapes: dict[str, Any], path: Path, *, output: str) -> None:
    torch.onnx.export(
        part,
        kwargs=inputs,
        f=str(path),
        dynamo=True,
        opset_version=OPSET,
        external_data=False,
        dynamic_shapes=shapes,
        input_names=list(inputs),
        output_names=[output],
        verbose=False,
    )


def describe(decoder: NeuralDecoder) -> dict[str, Any]:
    """Shapes, and what the inputs mean, as JSON."""
    model, geometry = exportable(decoder), decoder.model.geometry
    cells, width = geometry.code.cells, model.config.width
    outputs = len(geometry.output_supports)
    step = {
        "hidden": _input([cells, "shots", width], "float32", "the state; zeros before the first layer"),
        "events": _input(
            [2, cells, "shots"],
            "float32",
            "a layer of detection events, 0 or 1, of the checks of the memory basis and of the other ones, by cell in "
            "the memory frame (framed_cells); 0 where there is no detector",
        ),
        "basis": _input([], "int64", "0 for Z memory, 1 for X memory"),
        "phase": _input([], "int64", "0 for the first layer, 2 for the last, 1 for those between"),
    }
    readout = {"h": _input([cells, "shots", width], "float32", "the state after the last layer")}
    if model.propagation is not None:
        step["beliefs"] = _input(
            [cells, "shots", model.propagation.columns.total],
            "float32",
            "what belief propagation says of the layer: decoder.neural.beliefs.Beliefs.features",
        )
        readout["evidence"] = _input(
            ["shots", outputs, len(EVIDENCE)], "float32", "its solutions: decoder.neural.beliefs.Beliefs.evidence"
        )
    return {
        **decoder.model_info,
        "opset": OPSET,
        "step": {
            "file": STEP,
            "inputs": step,
            "outputs": {"next_hidden": _input([cells, "shots", width], "float32", "")},
        },
        "readout": {
            "file": READOUT,
            "inputs": readout,
            "outputs": {
                "log_odds": _input(["shots", outputs], "float32", "that each output's logical operator is flipped")
            },
        },
        "framed_cells": {basis: geometry.framed_cells(basis).tolist() for basis in NETWORK_BASES},
        "output_observables": geometry.output_observables.tolist(),
        "output_checks": geometry.output_checks.tolist(),
        "vote": "score of coset c = sum over outputs of log_odds * (-1)^(output_checks . parity of the memory checks' "
        "events) * [output_observables . c is odd]",
        "calibration": "log P(coset) = -(gap / temperature)^power + constant, gap to the best score, of the 64 best",
    }


def _input(shape: list[int | str], dtype: str, meaning: str) -> dict[str, Any]:
    return {"shape": shape, "dtype": dtype, "meaning": meaning}


def session(path: Path) -> Run:
    """A file as ONNX Runtime runs it, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    runtime = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {given.name for given in runtime.get_inputs()}

    def run(inputs: dict[str, Tensor]) -> Tensor:
        given = {name: np.ascontiguousarray(value.numpy()) for name, value in inputs.items() if name in names}
        return torch.from_numpy(runtime.run(None, given)[0])

    return run


def log_odds(
    model: RecurrentTransformer, step: Run, readout: Run, events: Tensor, beliefs: Beliefs | None, *, basis: int
) -> Tensor:
    """Log-odds (B, O) from events (T, 2, N, B), by any implementation of the parts."""
    hidden = model.start(events.shape[-1])
    for t, layer in enumerate(events):
        phase = int(Phase.of(t, len(events)))
        inputs = {"hidden": hidden, "events": layer, "basis": torch.tensor(basis), "phase": torch.tensor(phase)}
        if beliefs is not None:
            inputs["beliefs"] = beliefs.features[t]
        hidden = step(inputs)
    inputs = {"h": hidden}
    if beliefs is not None:
        inputs["evidence"] = beliefs.evidence
    return readout(inputs)


@torch.inference_mode()
def check(decoder: NeuralDecoder, out: Path, shots: np.ndarray[Any, np.dtype[np.bool_]]) -> Check:
    """Compares the files with torch on shots, bool (shots, detectors)."""
    model = exportable(decoder)
    step, readout = session(out / STEP), session(out / READOUT)
    worst = largest = 0.0
    differing = 0
    for first in range(0, len(shots), _BATCH):
        events = as_tensor(decoder.placement.dense(shots[first : first + _BATCH]), decoder.device)
        beliefs = None if model.propagation is None else model.propagation(events, basis=decoder.basis)
        found = log_odds(model, step, readout, events, beliefs, basis=decoder.basis)
        expected = model.log_odds(events, beliefs, basis=decoder.basis)
        worst = max(worst, float((found - expected).abs().max()))
        largest = max(largest, float(expected.abs().max()))
        cosets = [model.vote.scores(logits, events).argmax(1) for logits in (found, expected)]
        differing += int((cosets[0] != cosets[1]).sum())
    return Check(len(shots), worst, largest, differing)
