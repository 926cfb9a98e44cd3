"""A network with frozen weights as numba kernels compute it: packed once, then one shot as fast as it goes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from decoder.base import Decoding
from decoder.compiled import in_pieces
from decoder.neural.backends import kernels as cpu
from decoder.neural.beliefs import BeliefPropagation
from decoder.neural.calibration import CANDIDATES, Calibration
from decoder.neural.model import Block, GroupConv, Readout, RecurrentTransformer, RMSNorm
from decoder.neural.network import Network
from decoder.relay.graph import Floats
from decoder.relay.rules import Answers
from simulation.bits import Bits

HEADS = 8
"""Columns of the readout's heads: a multiple of four, which `cpu` multiplies fastest."""


@dataclass(frozen=True, eq=False)
class CompiledNetwork:
    """One memory basis of a network. Shapes as in `decoder.neural.backends.kernels`.

    A shot's answer is the same bits whatever is decoded with it, and whether its layers come one by one or at once.
    """

    steps: cpu.Steps
    reading: cpu.Reading
    propagation: BeliefPropagation | None
    calibration: Calibration
    basis: int
    k: int

    @classmethod
    def of(cls, network: Network, *, basis: int, calibration: Calibration) -> CompiledNetwork | None:
        """Packs the present weights of a network; None if it is one that only torch computes.

        That is one of another architecture than tandem, with attention, on a GPU, in another format than float32, or
        with a width that is no multiple of four.
        """
        if not isinstance(network, RecurrentTransformer) or network.config.width % 4:
            return None
        config, parameters = network.config, list(network.parameters())
        if {config.round_mixing, config.readout_mixing} != {"conv"}:
            return None
        if any(p.device.type != "cpu" or p.dtype != torch.float32 for p in parameters):
            return None
        with torch.no_grad():
            steps = _steps(network, basis)
            reading = _reading(network)
        return cls(steps, reading, network.propagation, calibration, basis, network.geometry.code.k)

    def start(self, shots: int) -> Floats:
        """The states (B, N, C) before the first layer."""
        return np.zeros((shots, len(self.steps.fourier), self.steps.keep.shape[2]), np.float32)

    def fold(self, hidden: Floats, events: Bits, *, phase: int) -> None:
        """Folds a layer of events, bool (B, 2, N), of a phase of `EventFold` into states (B, N, C), in place."""
        if self.propagation is not None:
            raise ValueError("a network that reads belief propagation needs all layers at once")
        logits = np.zeros((len(hidden), 0), np.float32)
        self._compute(events[:, :, None], phase, _nothing(layers=1, cells=hidden.shape[1]), hidden, logits)

    def decode(self, events: Bits) -> Decoding:
        """The answer for all layers of events, bool (B, 2, T, N)."""
        return self.decoding(*self.log_odds(events, self.believed(events)))

    def read(self, hidden: Floats, parity: Bits) -> Decoding:
        """The answer for states that have had their last layer, and the parity of each memory check's events (B, N)."""
        logits = self._empty_logits(len(hidden))
        cells = hidden.shape[1]
        no_layers = np.zeros((len(hidden), 2, 0, cells), np.bool_)
        self._compute(no_layers, -1, _nothing(layers=0, cells=cells), hidden.copy(), logits)
        return self.decoding(logits, parity)

    def believed(self, events: Bits) -> cpu.Believed:
        """What belief propagation, if the network reads it, says of events, bool (B, 2, T, N)."""
        layers, cells = events.shape[2:]
        if self.propagation is None:
            return _nothing(layers=layers, cells=cells)
        answers = self.propagation.compiled_answers(events, basis=self.basis)
        return believed_of(answers, layers=layers, cells=cells)

    def log_odds(self, events: Bits, believed: cpu.Believed) -> tuple[Floats, Bits]:
        """Log-odds (B, O) of the outputs, and the parity of each memory check's events (B, N)."""
        hidden, logits = self.start(len(events)), self._empty_logits(len(events))
        self._compute(events, -1, believed, hidden, logits)
        return logits, np.logical_xor.reduce(events[:, 0], axis=1)

    def scores(self, logits: Floats, parity: Bits) -> Floats:
        """The votes (B, 2^k) on each coset."""
        scores = np.empty((len(logits), 2**self.k), np.float32)
        cpu.vote(logits, parity, self.reading, scores)
        return scores

    def decoding(self, logits: Floats, parity: Bits) -> Decoding:
        """The answer that the outputs' log-odds (B, O) stand for."""
        shots, scores = len(logits), self.scores(logits, parity)
        answer = Decoding(
            predictions=np.zeros((shots, self.k), np.bool_),
            confidence=np.zeros(shots, np.float64),
            flip_probabilities=np.zeros((shots, self.k), np.float32),
        )
        calibration = self.calibration
        cpu.judge(
            scores,
            CANDIDATES,
            float(calibration.temperature),
            float(calibration.power),
            answer.predictions,
            answer.confidence,
            answer.flip_probabilities,
        )
        return answer

    def _compute(self, events: Bits, phase: int, believed: cpu.Believed, hidden: Floats, logits: Floats) -> None:
        def work(piece: slice) -> None:
            part = believed.of(piece)
            cpu.compute(events[piece], phase, part, self.steps, self.reading, hidden[piece], logits[piece])

        in_pieces(work, shots=len(hidden), threads=torch.get_num_threads())

    def _empty_logits(self, shots: int) -> Floats:
        return np.zeros((shots, len(self.reading.operator)), np.float32)


def believed_of(answers: Answers, *, layers: int, cells: int) -> cpu.Believed:
    """Belief propagation's answers in the shapes of the network."""
    by_cell = len(answers.found), layers, -1, cells
    return cpu.Believed(
        last=answers.last.reshape(by_cell),
        mean=answers.mean.reshape(by_cell),
        share=answers.share.reshape(by_cell),
        unexplained=answers.unexplained.reshape(len(answers.found), layers, cells),
        effort=answers.effort,
        found=answers.found,
        flips=answers.flips,
        weights=answers.weights,
    )


def _nothing(*, layers: int, cells: int) -> cpu.Believed:
    def empty(*shape: int) -> Floats:
        return np.zeros((0, *shape), np.float32)

    return cpu.Believed(
        last=empty(layers, 0, cells),
        mean=empty(layers, 0, cells),
        share=empty(layers, 0, cells),
        unexplained=empty(layers, cells),
        effort=empty(),
        found=np.zeros(0, np.int64),
        flips=empty(0, 0),
        weights=empty(0, 2),
    )


def _steps(model: RecurrentTransformer, basis: int) -> cpu.Steps:
    config = model.config
    fourier = model.readout.to_qubits.fourier
    read_beliefs = torch.zeros(0, config.width) if model.propagation is None else model.read_beliefs[basis]
    return cpu.Steps(
        keep=_array(torch.sigmoid(model.fold.gate[basis])),
        add=_array(model.fold.embedding[basis]),
        read_beliefs=_array(read_beliefs),
        fourier=_array(fourier),
        inverse=_array(fourier.t()),
        blocks=_blocks(list(model.blocks), model.readout),  # type: ignore[arg-type]
    )


def _reading(model: RecurrentTransformer) -> cpu.Reading:
    readout = model.readout
    p, q = _spectrum(readout.to_qubits, readout.norm)
    heads = [readout.head] if model.propagation is None else [readout.head, readout.trust_head]
    rows = torch.cat([head.weight for head in heads])
    biases = torch.cat([head.bias for head in heads])
    weight, bias = torch.zeros(rows.shape[1], HEADS), torch.zeros(HEADS)
    weight[:, : len(rows)], bias[: len(rows)] = rows.t(), biases
    observables = model.geometry.output_observables.astype(np.int64)
    return cpu.Reading(
        blocks=_blocks(list(readout.blocks), readout),  # type: ignore[arg-type]
        p=p,
        q=q,
        pooling=_array(readout.pooling),
        operator=_array(readout.operator.flatten(1)[readout.which]),
        hidden=_array(readout.hidden.weight.t()),
        hidden_bias=_array(readout.hidden.bias),
        heads=_array(weight),
        head_bias=_array(bias),
        checks=np.ascontiguousarray(model.geometry.output_checks.astype(np.bool_)),
        observables=(observables << np.arange(observables.shape[1])).sum(1),
    )


def _blocks(blocks: list[Block], readout: Readout) -> cpu.Blocks:
    if not blocks:
        frequencies, width, _ = readout.to_qubits.spectrum()[0].shape
        pairs = (frequencies - readout.to_qubits.num_real) // 2
        shapes = (frequencies - pairs, width, width), (pairs, width, width), (width, 2), (1, width)
        return cpu.Blocks(*(np.zeros((0, *shape), np.float32) for shape in shapes))
    spectra = [_spectrum(block.conv, block.mix_norm) for block in blocks if block.conv is not None]
    return cpu.Blocks(
        p=np.stack([p for p, _ in spectra]),
        q=np.stack([q for _, q in spectra]),
        up=np.stack([_array(block.mlp.up.weight.t() * block.mlp_norm.gain[:, None]) for block in blocks]),
        down=np.stack([_array(block.mlp.down.weight.t()) for block in blocks]),
    )


def _spectrum(conv: GroupConv, norm: RMSNorm) -> tuple[Floats, Floats]:
    """The convolution's spectrum after a norm's gain."""
    p, q = conv.spectrum()
    return _array(p * norm.gain[:, None]), _array(q * norm.gain[:, None])


def _array(tensor: Tensor) -> Floats:
    values: npt.NDArray[np.float32] = tensor.detach().float().contiguous().clone().numpy()
    return values
