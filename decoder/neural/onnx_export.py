"""The round step and the readout of a network as ONNX files, for other runtimes, checked against torch."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from decoder.classical.settings import Extra
from decoder.neural.backends.events import as_tensor, as_tensors
from decoder.neural.candidates import EVIDENCE, NUM_FEATURES
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


Inputs = tuple[Tensor, ...]
"""What the network reads: events and, if it judges, features and evidence."""
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
    for package in ("onnx", "onnxscript", "onnxruntime"):
        Extra(name="onnx", package=package).require("exporting to ONNX")


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


@dataclass(frozen=True)
class Input:
    """An input of a part: its shape, in which "shots" stands for any number of them, its type and its meaning."""

    shape: tuple[int | str, ...]
    dtype: str
    meaning: str

    def example(self, shots: int) -> Tensor:
        """Zeros for so many shots."""
        sizes = [shots if size == "shots" else int(size) for size in self.shape]
        return torch.zeros(sizes, dtype=getattr(torch, self.dtype))


def step_inputs(model: RecurrentTransformer) -> dict[str, Input]:
    """What the step reads."""
    cells = model.geometry.code.cells
    inputs = {
        "hidden": Input((cells, "shots", model.config.width), "float32", "the state; zeros before the first layer"),
        "events": Input(
            (2, cells, "shots"),
            "float32",
            "a layer of detection events, 0 or 1, of the checks of the memory basis and of the other ones, by cell in "
            "the memory frame (framed_cells); 0 where there is no detector",
        ),
        "basis": Input((), "int64", "0 for Z memory, 1 for X memory"),
        "phase": Input((), "int64", "0 for the first layer, 2 for the last, 1 for those between"),
    }
    if model.config.judges:
        says = "what belief propagation found, for the layer: decoder.neural.candidates.Beliefs.features"
        inputs["beliefs"] = Input((cells, "shots", NUM_FEATURES), "float32", says)
    return inputs


def readout_inputs(model: RecurrentTransformer) -> dict[str, Input]:
    """What the readout reads."""
    geometry = model.geometry
    state = geometry.code.cells, "shots", model.config.width
    inputs = {"h": Input(state, "float32", "the state after the last layer")}
    if model.config.judges:
        evidence = "shots", len(geometry.output_supports), len(EVIDENCE)
        inputs["evidence"] = Input(evidence, "float32", "its candidates: decoder.neural.candidates.Beliefs.evidence")
    return inputs


def export(decoder: NeuralDecoder, out: Path, *, force: bool = False) -> None:
    """Writes the step, the readout and their description into a directory.

    Raises:
        ValueError: the optional packages are missing, or the network has another architecture.
        FileExistsError: a file is there already, without force.
    """
    require_onnx()
    model = exportable(decoder)
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(out / STEP, force=force) as partial:
        _export_part(RoundStep(model), step_inputs(model), partial, output="next_hidden")
    with atomic_write(out / READOUT, force=force) as partial:
        _export_part(model.readout, readout_inputs(model), partial, output="log_odds")
    with atomic_write(out / DESCRIPTION, force=force) as partial:
        partial.write_text(json.dumps(describe(decoder), indent=2) + "\n", encoding="utf-8")


def _export_part(part: nn.Module, inputs: dict[str, Input], path: Path, *, output: str) -> None:
    shots = torch.export.Dim("shots", min=1)
    # The exporter warns of its own use of what is deprecated, and prints how far it has come.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                part,
                kwargs={name: given.example(shots=2) for name, given in inputs.items()},
                f=str(path),
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                dynamic_shapes={
                    name: {axis: shots for axis, size in enumerate(given.shape) if size == "shots"}
                    for name, given in inputs.items()
                },
                input_names=list(inputs),
                output_names=[output],
                verbose=False,
            )
    finally:
        logger.setLevel(level)


def describe(decoder: NeuralDecoder) -> dict[str, Any]:
    """Shapes, and what the inputs mean, as JSON."""
    model, geometry = exportable(decoder), decoder.model.geometry
    step, readout = step_inputs(model), readout_inputs(model)
    next_hidden = Input(step["hidden"].shape, "float32", "")
    log_odds = Input(
        ("shots", len(geometry.output_supports)), "float32", "that each output's logical operator is flipped"
    )
    return {
        **decoder.model_info,
        "opset": OPSET,
        "step": _described(STEP, step, {"next_hidden": next_hidden}),
        "readout": _described(READOUT, readout, {"log_odds": log_odds}),
        "framed_cells": {basis: geometry.framed_cells(basis).tolist() for basis in NETWORK_BASES},
        "output_observables": geometry.output_observables.tolist(),
        "output_checks": geometry.output_checks.tolist(),
        **_VOTE[model.config.judges],
    }


_VOTE = {
    False: {
        "vote": "score of coset c = sum over outputs of log_odds * (-1)^(output_checks . parity of the memory checks' "
        "events) * [output_observables . c is odd]",
        "calibration": "log P(coset) = -(gap / temperature)^power + constant, gap to the best score, of the 64 best",
    },
    True: {
        "vote": "score of candidate c = -F / T + k / outputs * sum of log_odds * [output flipped under c], "
        "which is the parity of output_observables . c and output_checks . parity of the memory checks' events; F is "
        "its free energy, and T the temperature of decoder.serial.solutions.choice times the temperature here",
        "calibration": "P(candidate) = softmax of the scores, times the chance that one is right, which "
        "decoder.serial.solutions.choice has of what the solutions explain",
        "candidates": "found by decoder.serial, for the shots whose solutions disagree; the network does not apply to "
        "others, and these files do not contain the search",
    },
}
"""By whether the network judges: how its log-odds become an answer."""


def _described(file: str, inputs: dict[str, Input], outputs: dict[str, Input]) -> dict[str, Any]:
    parts = {"inputs": inputs, "outputs": outputs}
    return {"file": file, **{kind: {name: asdict(g) for name, g in given.items()} for kind, given in parts.items()}}


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


def log_odds(model: RecurrentTransformer, step: Run, readout: Run, inputs: Inputs, *, basis: int) -> Tensor:
    """Log-odds (B, O) from what `RecurrentTransformer.forward` reads, by any implementation of the parts."""
    events, *beliefs = inputs
    hidden = model.start(events.shape[-1])
    for t, layer in enumerate(events):
        phase = torch.tensor(int(Phase.of(t, len(events))))
        given = {"hidden": hidden, "events": layer, "basis": torch.tensor(basis), "phase": phase}
        hidden = step({**given, "beliefs": beliefs[0][t]} if beliefs else given)
    return readout({"h": hidden, "evidence": beliefs[1]} if beliefs else {"h": hidden})


@torch.inference_mode()
def check(decoder: NeuralDecoder, out: Path, shots: np.ndarray[Any, np.dtype[np.bool_]]) -> Check:
    """Compares the files with torch on shots, bool (shots, detectors); a judge on those of them that it is shown."""
    model = exportable(decoder)
    step, readout = session(out / STEP), session(out / READOUT)
    worst = largest = 0.0
    checked = differing = 0
    for first in range(0, len(shots), _BATCH):
        inputs = _inputs(decoder, shots[first : first + _BATCH])
        if inputs[0].shape[-1] == 0:
            continue
        found = log_odds(model, step, readout, inputs, basis=decoder.basis)
        expected = model(*inputs, basis=decoder.basis)
        checked += len(found)
        worst = max(worst, float((found - expected).abs().max()))
        largest = max(largest, float(expected.abs().max()))
        differing += int(((found > 0) != (expected > 0)).any(1).sum())
    return Check(checked, worst, largest, differing)


def _inputs(decoder: NeuralDecoder, shots: np.ndarray[Any, np.dtype[np.bool_]]) -> Inputs:
    """What the network reads of some shots."""
    if decoder.judged is None:
        return (as_tensor(decoder.placement.dense(shots), decoder.device),)
    _, case = decoder.judged.disagreeing(shots)
    return as_tensors(case.events, case.beliefs, decoder.device)
