"""What computes a network's answers: the door that decoders and streams talk to, whoever stands behind it."""

from __future__ import annotations

from typing import Protocol, TypeVar

from decoder.base import Decoding
from decoder.neural.candidates import Beliefs
from decoder.neural.network import Network, Phase
from decoder.serial.graph import Floats
from simulation.bits import Bits

State = TypeVar("State")


class Backend(Protocol[State]):
    """One memory basis of a network with frozen weights, which either decodes alone or judges candidates.

    Events are bool, (B, 2, T, N) for all layers of B shots and (B, 2, N) for one: slot 0 the memory basis and 1 the
    other, T = rounds + 1 layers, N cells. Not for several threads at once.
    """

    def decode(self, events: Bits) -> Decoding:
        """The answer for all layers of some shots.

        Raises:
            ValueError: the network judges candidates.
        """

    def log_odds(self, events: Bits, beliefs: Beliefs) -> Floats:
        """What a network that judges says of the outputs of some shots, float32 (B, O); see `candidates.Candidates`."""

    def start(self, shots: int) -> State:
        """The state of so many shots before their first layer.

        Raises:
            ValueError: the network does not fold layers on arrival (`Network.folds_on_arrival`).
        """

    def step(self, state: State, layer: Bits, *, phase: Phase) -> State:
        """The state with one more layer folded in; the one given stays as it is."""

    def readout(self, state: State) -> Decoding:
        """The answer of shots whose last layer has been folded in: that of `decode`."""


def refuse_alone(network: Network) -> None:
    """Raises ValueError for a network that judges candidates, which it would have to be told."""
    if network.config.judges:
        raise ValueError("this network judges the cosets that belief propagation finds: ask it for their log-odds")


def refuse_to_fold(network: Network) -> None:
    """Raises ValueError for a network that needs all layers before it can begin."""
    if not network.folds_on_arrival:
        raise ValueError(
            "this network needs all layers of an experiment before it can begin: give them to decode at once"
        )
