"""A model of a running service as a `decoder.base.Decoder`."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from decoder.base import BatchDecoder, Decoding, Errors, SoftBatchDecoder
from decoder.tandem.decoder import TandemDecoding
from service.client.addresses import ExperimentOptions
from service.client.answers import ServiceError
from service.client.client import Client
from service.wire.schemas import ModelInfo
from simulation.bits import Bits
from simulation.circuits import MemoryExperiment
from simulation.foreign.experiment import ForeignExperiment

ServedExperiment: TypeAlias = MemoryExperiment | ForeignExperiment


class RemoteDecoder(BatchDecoder):
    """Decodes shots of one experiment by a service. `of` makes one.

    Args:
        client: the service.
        info: which of its models, and of the experiment.
        experiment: where the shots come from.
        named: what requests call it.
    """

    def __init__(
        self,
        client: Client,
        info: ModelInfo,
        experiment: ServedExperiment,
        named: ExperimentOptions,
    ) -> None:
        super().__init__(num_detectors=experiment.num_detectors, num_observables=experiment.num_observables)
        self.info = info
        self._client, self._experiment, self._named = client, experiment, named

    @classmethod
    def of(cls, client: Client, model_id: str, experiment: ServedExperiment) -> RemoteDecoder:
        """A decoder with all that the model's decoder tells: how sure it is, or errors.

        Args:
            client: the service.
            model_id: which of its models.
            experiment: where the shots come from. One that is no memory experiment is sent to the service, which keeps
                it.

        Raises:
            ServiceError: the service cannot be reached, has no such model, or does not decode such an experiment.
            ValueError: the model is for another code, other noise or other detectors.
        """
        named = _named(client, experiment)
        info = client.model(model_id, **named)
        if isinstance(experiment, MemoryExperiment):
            for what, here, there in (
                ("code", str(experiment.code), info.code.id),
                ("noise", str(experiment.noise), info.experiment.noise),
            ):
                if here != there:
                    raise ValueError(f"model {model_id} is for {what} {there}, not {here}; choose another with --model")
        kind: type[RemoteDecoder] = _KINDS[bool(info.gives_confidence), bool(info.gives_errors)]
        return kind(client, info, experiment, named)

    def predict(self, events: Bits) -> Bits:
        """Decodes as the service's decoder does.

        Raises:
            ServiceError: the service cannot be reached, or refuses.
        """
        return self._client.decode(self.info.id, events, **self._named).predictions


class _TellingErrors(RemoteDecoder):
    """The same of a decoder that tells errors; see `decoder.base.ErrorDecoder`."""

    @property
    def num_errors(self) -> int:
        """Of the detector error model."""
        return self._experiment.fault_model.num_instructions

    def decode_to_errors(self, shots: npt.NDArray[np.generic], *, bit_packed_shots: bool = False) -> Errors:
        """As the service's decoder does.

        Raises:
            ServiceError: the service cannot be reached, or refuses.
        """
        found = self._client.decode(self.info.id, shots, bit_packed_shots=bit_packed_shots, errors=True, **self._named)
        if found.errors is None or found.converged is None or found.hurried is None:
            raise ServiceError(f"the service told no errors of model {self.info.id}; is it of this version?")
        return Errors(found.predictions, found.errors, found.converged, found.hurried)


class _Soft(RemoteDecoder, SoftBatchDecoder):
    """The same of a decoder that says how sure it is."""

    def judge(self, events: Bits) -> Decoding:
        """As the service's decoder does.

        Raises:
            ServiceError: the service cannot be reached, or refuses.
        """
        found = self._client.decode(self.info.id, events, confidence=True, flip_probabilities=True, **self._named)
        if found.confidence is None or found.flip_probabilities is None:
            raise ServiceError(f"the service told no probabilities of model {self.info.id}; is it of this version?")
        columns = found.predictions, found.confidence, found.flip_probabilities
        return Decoding(*columns) if found.opinions is None else TandemDecoding(*columns, found.opinions)


class _SoftTellingErrors(_TellingErrors, _Soft):
    """The same of a decoder that does both."""


_KINDS = {
    (False, False): RemoteDecoder,
    (False, True): _TellingErrors,
    (True, False): _Soft,
    (True, True): _SoftTellingErrors,
}
"""By whether a model says how sure it is, and whether it tells errors."""


def _named(client: Client, experiment: ServedExperiment) -> ExperimentOptions:
    """What requests call an experiment.

    Raises:
        ServiceError: it is to be kept by the service, which refuses.
        ValueError: no service decodes its shots.
    """
    if isinstance(experiment, ForeignExperiment):
        return {"experiment": client.add_experiment(experiment.text, kind=experiment.kind).id}
    if experiment.detectors != "XYZ" or experiment.noiseless_last_cycle:
        raise ValueError(
            "a service decodes shots with the detectors of both bases and a noisy readout; "
            "decode these without --url, or send the circuit with --circuit"
        )
    return {"basis": experiment.basis, "rounds": experiment.rounds, "p": experiment.noise.p}
