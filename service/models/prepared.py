"""A model made ready for the shots of one experiment. Requests of every wire format are decoded by `Prepared`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from decoder.base import Decoder, Reweighting
from decoder.tandem.rule import seconds_left
from decoder.windows.decoder import WindowByWindow
from service.errors import DecodeTimeoutError, InvalidParametersError, RequestError, TooManyShotsError
from service.models.batching import kept_with
from service.models.experiments import kept_of
from service.models.model import Model
from service.models.reweighted import ReweightedShots
from service.models.second_opinions import AskedOpinions
from service.models.telling import telling_errors
from service.models.windows import InWindows, Windows, fixing_window
from service.telemetry.record import current_record
from service.wire.reweights import Reweights
from service.wire.schemas import AnyExperimentQuery
from service.wire.shots import DecodeResult, ExpectedShots, Sureness
from simulation.bits import Bits, PackedBits, pack_bits
from simulation.experiments import Experiment
from simulation.foreign.kept import KeptExperiment

MOST_PREDICTIONS = 2**21
"""Of one request, shots times observables: tens of milliseconds of the event loop as JSON."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model, one of its experiments, and the decoder for that experiment.

    `decode`, `decode_first` and `ask` take bit-packed shots, uint8 (shots, ceil(detectors / 8)), at least one, and put
    them into the model's queue. Cancelling removes them again. All three may raise:

        BusyError: the queue is full.
        ClosingError: the service is shutting down.
        DecodeTimeoutError: no result within the time set.
        DecoderFailedError: the decoder raised on the batch.
    """

    model: Model
    experiment: Experiment
    decoder: Decoder
    expected: ExpectedShots
    """What the shots in a body have to be like."""

    @classmethod
    async def of(cls, model: Model, query: AnyExperimentQuery, *, windows: Windows | None = None) -> Prepared:
        """Makes the decoder for the experiment that a request asks for, if it is not there yet.

        Args:
            model: decodes.
            query: says which experiment.
            windows: whether to ask window by window (`fix`).

        Raises:
            InvalidParametersError: no such experiment, or not for this decoder.
            UnknownExperimentError: no experiment of this id was sent with the client's key.
            BusyError: too many decoders are being made.
            NotReadyError, ClosingError: the model is not loaded yet, or no longer.
        """
        model.check_ready()
        if windows is None:
            experiment = model.any_experiment(query)
            decoder = await model.decoder(experiment)
        else:
            experiment = model.any_experiment(query, most_rounds=model.bounds.max_window_rounds)
            decoder = await model.decoder(InWindows(experiment, windows.decoder))
        most = min(model.bounds.max_shots_per_request, MOST_PREDICTIONS // max(1, decoder.num_observables))
        return cls(model, experiment, decoder, ExpectedShots(decoder.num_detectors, decoder.num_observables, most))

    async def decode(
        self,
        shots: PackedBits,
        *,
        deadline_ms: float | None = None,
        errors: bool = False,
        reweights: Reweights | None = None,
    ) -> DecodeResult:
        """Decodes shots. A pair passes those that its network is unsure of on to its second decoder.

        Args:
            shots: see above.
            errors: whether to tell the errors, without probabilities.
            deadline_ms: milliseconds from now after which a second opinion is late; None takes the model's default.
            reweights: other probabilities of the errors; the answer is that of the decoder of such a model.

        Raises:
            InvalidParametersError: a deadline for a model that is no pair, errors of a decoder that has none, or
                reweights for one that takes none.
            InvalidShotsError: reweights of a wrong shape, or that make no probabilities; without reweights, shots of
                an experiment that was sent which none of its errors explain.
            TooManyShotsError: their answers are too long for one request, or reweights for each are too many.
        """
        record, began = current_record(), time.perf_counter()
        if reweights is None and isinstance(self.experiment, KeptExperiment):  # perhaps it is not what was measured
            await kept_of(self.experiment).require_explained(shots)
        if reweights is not None:
            result = await self._decode_reweighted(shots, reweights, errors=errors)
        elif errors:
            telling = telling_errors(self.decoder, model_id=self.model.id)
            result = telling.told(await replace(self, decoder=telling).decode_first(shots))
        elif self.model.second is None and deadline_ms is None:
            result = await self.decode_first(shots)
        else:
            result = await (await self.ask(shots, deadline_ms=deadline_ms)).all()
        if result.doubtful:
            result = replace(result, usual=await self._usual())
        began = began if record is None else record.started
        self.model.metrics.answered(self.model.id, seconds=time.perf_counter() - began)
        return result

    async def decode_first(self, shots: PackedBits) -> DecodeResult:
        """`decode` without second opinions."""
        model = self.model
        seconds = model.bounds.decode_timeout_seconds
        try:
            with model.metrics.waiting(model.id, shots=len(shots)):
                async with asyncio.timeout(seconds):
                    result = await model.worker.decode(self.decoder, shots)
        except TimeoutError:
            raise DecodeTimeoutError(
                f"no answer within {seconds:g} s; send fewer shots at once, or try again later", retry_after=1
            ) from None
        model.metrics.queue_seconds.labels(model.id).observe(result.queue_seconds)
        if (record := current_record()) is not None:
            record.decoded(shots=len(shots), queue_seconds=result.queue_seconds, compute_seconds=result.compute_seconds)
        return result

    async def _usual(self) -> Sureness | None:
        """How sure the decoder is of shots of the experiment, found out when first asked for; None if it cannot be."""
        known: list[Sureness] = kept_with(self.decoder, Sureness, list)
        if not known:
            with suppress(RequestError):
                samples = await self.model.samples(self.experiment)
                found = (await self.decode_first(samples)).confidence
                if found is not None:
                    known.append(Sureness.of(found))
        return known[0] if known else None

    @property
    def num_errors(self) -> int:
        """Errors of the detector error model.

        Raises:
            InvalidParametersError: see `require_reweighting`.
        """
        self.require_reweighting()
        return int(self.decoder.num_errors)  # type: ignore[attr-defined]

    def require_reweighting(self) -> None:
        """Refuses reweights where the decoder takes none.

        Raises:
            InvalidParametersError: it does not.
        """
        if getattr(self.decoder, "num_errors", None) is None or getattr(self.decoder, "reweighting", None) is None:
            detail = f"model {self.model.id} takes no reweights; ask one with a classical decoder of whole shots"
            raise InvalidParametersError.of(detail, parameter="reweights")

    async def _decode_reweighted(self, shots: PackedBits, reweights: Reweights, *, errors: bool) -> DecodeResult:
        self.require_reweighting()
        most = self.model.bounds.max_reweighted_shots
        if reweights.values.ndim > 1 and len(shots) > most:
            detail = f"{len(shots)} shots with reweights for each in one request, at most {most} are allowed"
            raise TooManyShotsError(f"{detail}; send them in parts")
        reweighting: Reweighting = self.decoder.reweighting  # type: ignore[attr-defined]
        reweighted = ReweightedShots(
            reweighting,
            reweights.probabilities(await self.model.priors(self.decoder), shots=len(shots)),
            num_detectors=self.expected.num_detectors,
            num_observables=self.expected.num_observables,
            errors=errors,
        )
        result = await replace(self, decoder=reweighted).decode_first(reweighted.rows(shots))
        return reweighted.told(result)

    async def fix(self, start: int, layers: Sequence[Bits]) -> tuple[Bits, list[Bits], bool]:
        """Decodes one window of one shot; see `Prepared.of`.

        Args:
            start: the layer at which it begins.
            layers: the events of its layers, bool (detectors,) each, without what earlier windows have fixed.

        Returns:
            The flips of the errors that are fixed, bool (observables,), the events that are left of the layers which
            the next window has as well, and whether the errors found explain all of them.
        """
        assert isinstance(self.decoder, WindowByWindow)
        fixing = fixing_window(self.decoder, start, [len(layer) for layer in layers])
        result = await replace(self, decoder=fixing).decode_first(pack_bits(np.concatenate(layers)[None]))
        return fixing.told(result.predictions[0])

    async def ask(self, shots: PackedBits, *, deadline_ms: float | None = None) -> AskedOpinions:
        """The network's result, and second opinions that are on their way; the arguments are those of `decode`."""
        second = self.model.second
        if second is None:
            raise not_a_pair(self.model.id, "deadline_ms")
        began = time.perf_counter()
        result = await self.decode_first(shots)
        seconds = began + self.model.bounds.decode_timeout_seconds - time.perf_counter()
        if deadline_ms is None:
            deadline_ms = second.info.deadline_ms
        if deadline_ms is not None:
            seconds = min(seconds, seconds_left(deadline_ms, began=began))
        return second.ask(result, self.experiment, shots, seconds=seconds)


def not_a_pair(model_id: str, name: str) -> InvalidParametersError:
    """The error of a parameter for pairs in a request for another model."""
    return InvalidParametersError.of(
        f"{name} belongs to pairs, and model {model_id} is none; leave it out", parameter=name
    )
