"""A model of a running service as a `decoder.base.Decoder`."""

from __future__ import annotations

from decoder.base import BatchDecoder
from service.client.client import Client
from service.client.exchange import ExperimentOptions
from simulation.bits import Bits
from simulation.circuits import MemoryExperiment
from simulation.foreign.experiment import ForeignExperiment


class RemoteDecoder(BatchDecoder):
    """Decodes shots of one experiment by a service.

    Args:
        client: the service.
        model_id: which of its models.
        experiment: where the shots come from. One that is no memory experiment is sent to the service, which keeps it.

    Raises:
        ServiceError: the service cannot be reached, has no such model, or does not decode such an experiment.
        ValueError: the model is for another code, other noise or other detectors.
    """

    def __init__(self, client: Client, model_id: str, experiment: MemoryExperiment | ForeignExperiment) -> None:
        super().__init__(num_detectors=experiment.num_detectors, num_observables=experiment.num_observables)
        self._client = client
        if isinstance(experiment, ForeignExperiment):
            self._named: ExperimentOptions = {
                "experiment": client.add_experiment(experiment.text, kind=experiment.kind).id
            }
            self.info = client.model(model_id, **self._named)
            return
        if experiment.detectors != "XYZ" or experiment.noiseless_last_cycle:
            raise ValueError(
                "a service decodes shots with the detectors of both bases and a noisy readout; "
                "decode these without --url, or send the circuit with --circuit"
            )
        self._named = {"basis": experiment.basis, "rounds": experiment.rounds, "p": experiment.noise.p}
        info = self.info = client.model(model_id, **self._named)
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
        return self._client.decode(self.info.id, events, **self._named).predictions
