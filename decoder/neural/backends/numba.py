"""A network with frozen weights as numba kernels compute it: packed once, then one shot as fast as it goes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from decoder.base import Decoding
from decoder.compiled import in_pieces
from decoder.neural.backends import numba_kernels as kernels
from decoder.neural.backends.base import refuse_alone, refuse_to_fold
from decoder.neural.calibration import CANDIDATES, Calibration
from decoder.neural.candidates import EVIDENCE, NUM_FEATURES, Beliefs
from decoder.neural.model import Block, GroupConv, Readout, RecurrentTransformer, RMSNorm
from decoder.neural.network import Network, Phase, coset_number
from decoder.serial.graph import Floats
from simulation.bits import Bits

HEADS = 8
"""Columns of the readout's heads: a multiple of four, which the kernels multiply fastest."""


def compilable(network: Network) -> bool:
    """Whether the kernels can compute a network.

    That is one of architecture tandem, with convolutions and no attention, of a width that is a multiple of four, in
    float32, on a CPU.
    """
    if not isinstance(network, RecurrentTransformer) or network.config.width % 4:
        return False
    if {network.config.round_mixing, network.config.readout_mixing} != {"conv"}:
        return False
    return all(p.device.type == "cpu" and p.dtype == torch.float32 for p in network.parameters())


@dataclass(frozen=True, eq=False)
class NumbaState:
    """What is kept of some shots, whatever the number of rounds."""

    hidden: Floats
    """float32 (B, N, C): the network's state."""
    parity: Bits
    """bool (B, N): the parity of each memory check's events so far."""


class NumbaBackend:
    """See `decoder.neural.backends.base.Backend`. Shapes as in `decoder.neural.backends.numba_kernels`.

    A shot's answer is the same bits whatever is decoded with it, and whether its layers come one by one or at once.
    """

    def __init__(self, network: RecurrentTransformer, *, basis: int, calibration: Calibration) -> None:
        """Packs the present weights of a network that is `compilable`."""
        self.network = network
        self.basis = basis
        self.calibration = calibration
        with torch.no_grad():
            self._steps = _steps(network, basis)
            self._reading = _reading(network)

    def decode(self, events: Bits) -> Decoding:
        """The answer for all layers of events, bool (B, 2, T, N); raises ValueError as `Backend.decode` does."""
        refuse_alone(self.network)
        parity = np.logical_xor.reduce(events[:, 0], axis=1)
        return self.decoding(self.log_odds(events, NOTHING), parity)

    def log_odds(self, events: Bits, beliefs: Beliefs) -> Floats:
        """Log-odds (B, O) of the outputs; a network that does not judge needs the beliefs of no shot."""
        hidden, logits = self._zeros(len(events)), self._empty_logits(len(events))
        self._compute(events, _phases(events.shape[2]), beliefs, hidden, logits)
        return logits

    def scores(self, logits: Floats, parity: Bits) -> Floats:
        """The votes (B, 2^k) on each coset."""
        scores = np.empty((len(logits), 2**self.network.geometry.code.k), np.float32)
        kernels.vote(logits, parity, self._reading, scores)
        return scores

    def decoding(self, logits: Floats, parity: Bits) -> Decoding:
        """The answer that the outputs' log-odds (B, O) stand for."""
        shots, k = len(logits), self.network.geometry.code.k
        answer = Decoding(
            predictions=np.zeros((shots, k), np.bool_),
            confidence=np.zeros(shots, np.float64),
            flip_probabilities=np.zeros((shots, k), np.float32),
        )
        kernels.judge(
            self.scores(logits, parity),
            CANDIDATES,
            float(self.calibration.temperature),
            float(self.calibration.power),
            answer.predictions,
            answer.confidence,
            answer.flip_probabilities,
        )
        return answer

    def start(self, shots: int) -> NumbaState:
        """Zeros; raises ValueError as `Backend.start` does."""
        refuse_to_fold(self.network)
        hidden = self._zeros(shots)
        state = NumbaState(hidden, np.zeros(hidden.shape[:2], np.bool_))
        # Compiles, if that has not been done, so that no experiment's first layer waits for it.
        self.step(state, np.zeros((shots, 2, hidden.shape[1]), np.bool_), phase=Phase.FIRST)
        return state

    def step(self, state: NumbaState, layer: Bits, *, phase: Phase) -> NumbaState:
        """Folds a layer, bool (B, 2, N)."""
        hidden = state.hidden.copy()
        no_logits = np.zeros((len(hidden), 0), np.float32)
        events = np.ascontiguousarray(layer[:, :, None])
        self._compute(events, np.array([phase], dtype=np.int64), NOTHING, hidden, no_logits)
        return NumbaState(hidden, state.parity ^ layer[:, 0])

    def readout(self, state: NumbaState) -> Decoding:
        """The answer for states that have had their last layer."""
        shots, cells, _ = state.hidden.shape
        logits, no_layers = self._empty_logits(shots), np.zeros((shots, 2, 0, cells), np.bool_)
        self._compute(no_layers, np.zeros(0, np.int64), NOTHING, state.hidden.copy(), logits)
        return self.decoding(logits, state.parity)

    def _compute(
        self, events: Bits, phases: npt.NDArray[np.int64], beliefs: Beliefs, hidden: Floats, logits: Floats
    ) -> None:
        """`numba_kernels.compute`, by torch.get_num_threads() threads."""

        def work(piece: slice) -> None:
            part, shots = Beliefs(*(field[piece] for field in beliefs)), (hidden[piece], logits[piece])
            kernels.compute(events[piece], phases, part, self._steps, self._reading, *shots)

        in_pieces(work, shots=len(hidden), threads=torch.get_num_threads())

    def _zeros(self, shots: int) -> Floats:
        return np.zeros((shots, self.network.geometry.code.cells, self.network.config.width), np.float32)

    def _empty_logits(self, shots: int) -> Floats:
        return np.zeros((shots, len(self._reading.operator)), np.float32)


@lru_cache(maxsize=32)
def _phases(layers: int) -> npt.NDArray[np.int64]:
    """The phase of each of so many layers."""
    return np.array([Phase.of(t, layers) for t in range(layers)], dtype=np.int64)


NOTHING = Beliefs(np.zeros((0, 0, 0, NUM_FEATURES), np.float32), np.zeros((0, 0, len(EVIDENCE)), np.float32))
"""For networks that do not judge."""


def _steps(model: RecurrentTransformer, basis: int) -> kernels.Steps:
    read_beliefs = model.read_beliefs[basis] if model.config.judges else torch.zeros(0, model.config.width)
    fourier = model.readout.to_qubits.fourier
    return kernels.Steps(
        keep=_array(torch.sigmoid(model.fold.gate[basis])),
        add=_array(model.fold.embedding[basis]),
        read_beliefs=_array(read_beliefs),
        fourier=_array(fourier),
        inverse=_array(fourier.t()),
        blocks=_blocks(list(model.blocks), model.readout),  # type: ignore[arg-type]
    )


def _reading(model: RecurrentTransformer) -> kernels.Reading:
    readout = model.readout
    p, q = _spectrum(readout.to_qubits, readout.norm)
    heads = [readout.head, readout.trust_head] if model.config.judges else [readout.head]
    rows = torch.cat([head.weight for head in heads])
    biases = torch.cat([head.bias for head in heads])
    weight, bias = torch.zeros(rows.shape[1], HEADS), torch.zeros(HEADS)
    weight[:, : len(rows)], bias[: len(rows)] = rows.t(), biases
    return kernels.Reading(
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
        observables=coset_number(torch.from_numpy(model.geometry.output_observables)).numpy(),
    )


def _blocks(blocks: list[Block], readout: Readout) -> kernels.Blocks:
    if not blocks:
        frequencies, width, _ = readout.to_qubits.spectrum()[0].shape
        pairs = (frequencies - readout.to_qubits.num_real) // 2
        shapes = (frequencies - pairs, width, width), (pairs, width, width), (width, 2), (1, width)
        return kernels.Blocks(*(np.zeros((0, *shape), np.float32) for shape in shapes))
    spectra = [_spectrum(block.conv, block.mix_norm) for block in blocks if block.conv is not None]
    return kernels.Blocks(
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
