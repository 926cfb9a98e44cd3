"""Detection events folded into the network's state, for experiments that are each at a round of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from decoder.base import Bits, Decoding, Phase
from decoder.neural.model import EventFold, RecurrentTransformer

if TYPE_CHECKING:
    from decoder.neural.decoder import NeuralDecoder

_PHASES = {"first": EventFold.FIRST, "middle": EventFold.MIDDLE, "last": EventFold.LAST}


@dataclass(frozen=True, eq=False)
class FoldState:
    """What is kept of some experiments, whatever the number of rounds."""

    hidden: Tensor
    """float (N, B, C): the network's state."""
    parity: Tensor
    """float (1, 1, N, B): the parity of each memory check's events.

    As a layer of events, for the vote asks no more of all layers than the parity of their sum.
    """


class NetworkFolder:
    """The network of a decoder as a `decoder.base.LayerFolder`.

    Args:
        decoder: an experiment of two rounds or more for `fold`, as only those have a layer of every phase. The
            states are of experiments of any number of rounds.
        model: its network, without belief propagation.
    """

    def __init__(self, decoder: NeuralDecoder, model: RecurrentTransformer) -> None:
        self.decoder = decoder
        self.model = model
        with torch.inference_mode():
            self._spectra = model.spectra()

    @torch.inference_mode()
    def start(self, shots: int = 1) -> FoldState:
        """The state of so many experiments before their first layer."""
        hidden = self.model.start(shots)
        return FoldState(hidden, torch.zeros(1, 1, *hidden.shape[:2], device=hidden.device))

    @torch.inference_mode()
    def step(self, state: FoldState, events: Tensor, *, phase: int) -> FoldState:
        """Folds a layer, float (2, N, B) as `NeuralDecoder.arrange_layer` makes it, of a phase of `EventFold`."""
        hidden = self.model.step(state.hidden, events, basis=self.decoder.basis, phase=phase, spectra=self._spectra)
        return FoldState(hidden, (state.parity + events[0]) % 2)

    @torch.inference_mode()
    def readout(self, state: FoldState) -> Decoding:
        """The answer for experiments that have had their last layer."""
        logits = self.model.readout(state.hidden)
        return self.decoder.decoding(self.model.vote.scores(logits.float(), state.parity))

    def fold(self, states: Sequence[FoldState], layers: Bits, *, phase: Phase) -> list[FoldState]:
        """Folds one layer into each of some states; see `decoder.base.LayerFolder`."""
        rounds = len(self.decoder.layers) - 1
        if rounds < 2:
            raise ValueError("only a decoder of two rounds or more can fold the layers of all phases")
        events = self.decoder.arrange_layer({"first": 0, "middle": 1, "last": rounds}[phase], layers)
        folded = self.step(_together(states), events, phase=_PHASES[phase])
        # Copies, as a view would keep the states of all the others in memory.
        return [
            FoldState(folded.hidden[:, i : i + 1].clone(), folded.parity[..., i : i + 1].clone())
            for i in range(len(states))
        ]

    def answer(self, states: Sequence[FoldState]) -> Decoding:
        """The answers; see `decoder.base.LayerFolder`."""
        return self.readout(_together(states))


def _together(states: Sequence[FoldState]) -> FoldState:
    with torch.inference_mode():
        return FoldState(
            torch.cat([state.hidden for state in states], dim=1), torch.cat([state.parity for state in states], dim=-1)
        )
