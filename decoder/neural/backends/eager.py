"""A network as torch computes it, operation by operation: any architecture, on any device. The others' reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from decoder.base import Decoding
from decoder.neural.backends.base import refuse_alone, refuse_to_fold
from decoder.neural.backends.events import as_tensor, as_tensors
from decoder.neural.calibration import Calibration
from decoder.neural.candidates import Beliefs
from decoder.neural.model import RecurrentTransformer
from decoder.neural.network import Network, Phase
from decoder.serial.graph import Floats
from simulation.bits import Bits


@dataclass(frozen=True, eq=False)
class TorchState:
    """What is kept of some shots, whatever the number of rounds."""

    hidden: Tensor
    """float (N, B, C): the network's state."""
    parity: Tensor
    """float (1, 1, N, B): the parity of each memory check's events so far, 0 or 1.

    As a layer of events, for the vote asks no more of all layers than the parity of their sum.
    """


class EagerBackend:
    """See `decoder.neural.backends.base.Backend`."""

    def __init__(self, network: Network, *, basis: int, calibration: Calibration, device: torch.device) -> None:
        """Takes a network that is on the device, with frozen weights."""
        self.network = network
        self.basis = basis
        self.calibration = calibration
        self.device = device

    @torch.inference_mode()
    def decode(self, events: Bits) -> Decoding:
        """The answer for events, bool (B, 2, T, N); raises ValueError as `Backend.decode` does."""
        refuse_alone(self.network)
        return self.decoding(self._scores(as_tensor(events, self.device)))

    @torch.inference_mode()
    def log_odds(self, events: Bits, beliefs: Beliefs) -> Floats:
        """What a network that judges says of the outputs, float32 (B, O)."""
        found: Floats = self._judge(*as_tensors(events, beliefs, self.device)).float().cpu().numpy()
        return found

    def decoding(self, scores: Tensor) -> Decoding:
        """The answer that the scores (B, 2^k) of the cosets stand for."""
        posterior = self.calibration.log_posterior(scores).exp()
        confidence, coset = posterior.max(dim=1)
        cosets = self.network.cosets
        flips = posterior.float() @ cosets
        return Decoding(cosets[coset].bool().cpu().numpy(), confidence.cpu().numpy(), flips.cpu().numpy())

    @torch.inference_mode()
    def start(self, shots: int) -> TorchState:
        """Zeros; raises ValueError as `Backend.start` does."""
        refuse_to_fold(self.network)
        hidden = self._model.start(shots)
        return TorchState(hidden, torch.zeros(1, 1, *hidden.shape[:2], device=hidden.device))

    @torch.inference_mode()
    def step(self, state: TorchState, layer: Bits, *, phase: Phase) -> TorchState:
        """Folds a layer, bool (B, 2, N)."""
        events = as_tensor(layer[:, :, None], self.device)[0]  # (2, N, B)
        return TorchState(self._step(state.hidden, events, phase), (state.parity + events[0]) % 2)

    @torch.inference_mode()
    def readout(self, state: TorchState) -> Decoding:
        """The answer for states that have had their last layer."""
        return self.decoding(self._read(state.hidden, state.parity))

    @property
    def _model(self) -> RecurrentTransformer:
        """The network as one that folds layers or judges, which those who ask have made sure of."""
        return cast(RecurrentTransformer, self.network)

    def _scores(self, events: Tensor) -> Tensor:
        return self.network.scores(events, basis=self.basis)

    def _judge(self, events: Tensor, features: Tensor, evidence: Tensor) -> Tensor:
        logits: Tensor = self._model(events, features, evidence, basis=self.basis)
        return logits

    def _step(self, hidden: Tensor, events: Tensor, phase: Phase) -> Tensor:
        model = self._model
        return model.step(hidden, events, basis=self.basis, phase=phase, spectra=model.spectra())

    def _read(self, hidden: Tensor, parity: Tensor) -> Tensor:
        model = self._model
        return model.coset_vote.scores(model.readout(hidden).float(), parity)
