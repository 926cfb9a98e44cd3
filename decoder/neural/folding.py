"""Detection events folded into the network's state, for experiments that are each at a round of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from decoder.base import Decoding, Phase
from decoder.neural.backends.numba import CompiledNetwork
from decoder.neural.model import EventFold, RecurrentTransformer
from decoder.relay.graph import Floats
from simulation.bits import Bits

if TYPE_CHECKING:
    from decoder.neural.decoder import NeuralDecoder

_PHASES = {"first": EventFold.FIRST, "middle": EventFold.MIDDLE, "last": EventFold.LAST}
State = TypeVar("State")


class NetworkFolder(ABC, Generic[State]):
    """The network of a decoder as a `decoder.base.LayerFolder`; without belief propagation.

    Args:
        decoder: an experiment of two rounds or more for `fold`, as only those have a layer of every phase. The
            states are of experiments of any number of rounds.
    """

    def __init__(self, decoder: NeuralDecoder) -> None:
        self.decoder = decoder

    @abstractmethod
    def start(self, shots: int = 1) -> State:
        """The state of so many experiments before their first layer."""

    @abstractmethod
    def step(self, state: State, layer: Bits, *, t: int, phase: int) -> State:
        """Folds a layer, bool (shots, detectors), that is like layer t of the decoder's experiment, of a phase."""

    @abstractmethod
    def readout(self, state: State) -> Decoding:
        """The answer for experiments that have had their last layer."""

    @abstractmethod
    def _together(self, states: Sequence[State]) -> State: ...

    @abstractmethod
    def _apart(self, state: State, i: int) -> State:
        """A copy, as a view would keep the states of all the others in memory."""

    def fold(self, states: Sequence[State], layers: Bits, *, phase: Phase) -> list[State]:
        """Folds one layer into each of some states; see `decoder.base.LayerFolder`."""
        rounds = len(self.decoder.layers) - 1
        if rounds < 2:
            raise ValueError("only a decoder of two rounds or more can fold the layers of all phases")
        t = {"first": 0, "middle": 1, "last": rounds}[phase]
        folded = self.step(self._together(states), layers, t=t, phase=_PHASES[phase])
        return [self._apart(folded, i) for i in range(len(states))]

    def answer(self, states: Sequence[State]) -> Decoding:
        """The answers; see `decoder.base.LayerFolder`."""
        return self.readout(self._together(states))


@dataclass(frozen=True, eq=False)
class CompiledState:
    """What is kept of some experiments, whatever the number of rounds."""

    hidden: Floats
    """(B, N, C): the network's state."""
    parity: Bits
    """(B, N): the parity of each memory check's events."""


class CompiledFolder(NetworkFolder[CompiledState]):
    """By numba: the answers of experiments are the same bits, whatever they are folded with."""

    def __init__(self, decoder: NeuralDecoder, network: CompiledNetwork) -> None:
        super().__init__(decoder)
        self.network = network
        # Compiles, so that no experiment's first layer waits for it.
        start = self.start()
        network.fold(start.hidden, np.zeros((1, 2, start.hidden.shape[1]), np.bool_), phase=EventFold.FIRST)

    def start(self, shots: int = 1) -> CompiledState:
        hidden = self.network.start(shots)
        return CompiledState(hidden, np.zeros(hidden.shape[:2], np.bool_))

    def step(self, state: CompiledState, layer: Bits, *, t: int, phase: int) -> CompiledState:
        events, hidden = self.decoder.layer_events(t, layer), state.hidden.copy()
        self.network.fold(hidden, events, phase=phase)
        return CompiledState(hidden, state.parity ^ events[:, 0])

    def readout(self, state: CompiledState) -> Decoding:
        return self.network.read(state.hidden, state.parity)

    def _together(self, states: Sequence[CompiledState]) -> CompiledState:
        return CompiledState(np.concatenate([s.hidden for s in states]), np.concatenate([s.parity for s in states]))

    def _apart(self, state: CompiledState, i: int) -> CompiledState:
        return CompiledState(state.hidden[i : i + 1].copy(), state.parity[i : i + 1].copy())


@dataclass(frozen=True, eq=False)
class TorchState:
    """As `CompiledState`."""

    hidden: Tensor
    """float (N, B, C)."""
    parity: Tensor
    """float (1, 1, N, B).

    As a layer of events, for the vote asks no more of all layers than the parity of their sum.
    """


class TorchFolder(NetworkFolder[TorchState]):
    """By torch, on any device."""

    def __init__(self, decoder: NeuralDecoder, model: RecurrentTransformer) -> None:
        super().__init__(decoder)
        self.model = model
        with torch.inference_mode():
            self._spectra = model.spectra()

    @torch.inference_mode()
    def start(self, shots: int = 1) -> TorchState:
        hidden = self.model.start(shots)
        return TorchState(hidden, torch.zeros(1, 1, *hidden.shape[:2], device=hidden.device))

    @torch.inference_mode()
    def step(self, state: TorchState, layer: Bits, *, t: int, phase: int) -> TorchState:
        events = self.decoder.arrange_layer(t, layer)
        graphed, basis = self.decoder.graphed, self.decoder.basis
        if graphed is None:
            hidden = self.model.step(state.hidden, events, basis=basis, phase=phase, spectra=self._spectra)
        else:
            hidden = graphed.step(state.hidden, events, phase=phase)
        return TorchState(hidden, (state.parity + events[0]) % 2)

    @torch.inference_mode()
    def readout(self, state: TorchState) -> Decoding:
        if self.decoder.graphed is not None:
            return self.decoder.decoding(self.decoder.graphed.readout(state.hidden, state.parity))
        logits = self.model.readout(state.hidden)
        return self.decoder.decoding(self.model.vote.scores(logits.float(), state.parity))

    @torch.inference_mode()
    def _together(self, states: Sequence[TorchState]) -> TorchState:
        return TorchState(
            torch.cat([state.hidden for state in states], dim=1), torch.cat([state.parity for state in states], dim=-1)
        )

    @torch.inference_mode()
    def _apart(self, state: TorchState, i: int) -> TorchState:
        return TorchState(state.hidden[:, i : i + 1].clone(), state.parity[..., i : i + 1].clone())
