"""A model of a running service as a `decoder.base.Decoder`."""

from __future__ import annotations

from decoder.base import BatchDecoder
from service.client.client import Client
from simulation.bits import Bits
from simulation.circuits import MemoryExperiment


class RemoteDecoder(BatchDecoder):
    """Decodes shots of one experiment by a service.

    Args:
        client: the service.
        model_id: which of its models.
        experiment: where the shots come from.

    Raises:
        ServiceError: the service cannot be reached, has no such model, or does not decode such an experiment.
        ValueError: the model is for another code, other noise or other detectors.
    """

    def __init__(self, client: Client, model_id: str, experiment: MemoryExperiment) -> None:
        if experiment.detectors != "XYZ" or experiment.noiseless_last_cycle:
            raise ValueError(
                "a service decodes shots with the detectors of both bases and a noisy readout; "
                "decode these without --url"
            )
        super().__init__(num_detectors=experiment.num_detectors, num_observables=experiment.num_observables)
        self._client = client
        self._experiment = experiment
        info = self.info = client.model(
            model_id, basis=experiment.basis, rounds=experiment.rounds, p=experiment.noise.p
        )
        for what, here, there in (
            ("code", str(experiment.code), info.code.id),
            ("noise", str(experiment.noise), info.experiment.noise),
        ):
            if here != there:
                raise ValueError(f"model {model_id} is for {what} {there}, not {here}; choose another with --model")

    def predict(self, events: Bits) -> Bits:
        """Decodes as the service's decoder does.

        Raises:
            ServiceError: the service cannot be reached, or refuses.
        """
        experiment = self._experiment
        return self._client.decode(
            self.info.id, events, basis=experiment.basis, rounds=experiment.rounds, p=experiment.noise.p
        ).predictions
