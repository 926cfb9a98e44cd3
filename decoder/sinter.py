"""All decoders as sinter decoders.

Use them from sinter's command line with
``--custom_decoders_module_function decoder.sinter:decoders``, or from Python:

    >>> import sinter
    >>> from decoder.sinter import decoders
    >>> from simulation.circuits import MemoryExperiment
    >>> circuit = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.001).circuit
    >>> [stats] = sinter.collect(
    ...     num_workers=1, tasks=[sinter.Task(circuit=circuit)], decoders=["bposd"],
    ...     custom_decoders=decoders(), max_shots=100,
    ... )
    >>> stats.shots
    100

The network knows how sure it is. ``NeuralSinterDecoder(discard_below=0.9)`` tells sinter to discard each shot
whose predicted coset has a posterior probability below 0.9; sinter counts these as discards and the failures
among the others as errors. On sinter's command line, thresholds in TANDEM_DISCARD_BELOW, with commas between
them, add a decoder each, named for its threshold:

    TANDEM_DISCARD_BELOW=0.9,0.99 sinter collect --decoders neural neural-discard-0.9 tandem-discard-0.99 ...

The threshold is in the name because sinter tells decoders apart by their names alone: with one name for all
thresholds, a file of results that is continued with another threshold would add up what does not belong
together. In the same way windows in TANDEM_WINDOWS, W-C of W layers that move on by C, add every classical decoder that
tells errors in these windows, such as serial-window-12-6 (`decoder.windows`).

`tandem benchmark calibration` shows which failures a threshold catches. Pairs with the network discard by
its confidence too, whoever answered.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import sinter
import stim

from decoder.base import Decoder, SoftDecoder, predict_packed
from decoder.catalog import DECODERS, decoder_spec
from decoder.tandem.decoder import TandemDecoder
from decoder.tandem.pairs import THRESHOLD
from decoder.tandem.rule import unsure
from simulation.bits import PackedBits, pack_bits
from simulation.foreign.experiment import ForeignExperiment

DISCARD_VARIABLE = "TANDEM_DISCARD_BELOW"
"""The environment variable with the thresholds for discarding shots."""
WINDOWS_VARIABLE = "TANDEM_WINDOWS"
"""The environment variable with the windows of decoders in windows."""


def decoders() -> dict[str, sinter.Decoder]:
    """Every decoder of `decoder.catalog.DECODERS`, by the same names, and the discarding ones asked for.

    Each threshold t in the environment variable TANDEM_DISCARD_BELOW adds "neural-discard-t", and as much for each
    pair, such as "tandem-discard-t".

    Raises:
        ValueError: TANDEM_WINDOWS holds something other than windows, or TANDEM_DISCARD_BELOW something other than
            numbers above 0 and below 1.
    """
    thresholds = _thresholds(os.environ.get(DISCARD_VARIABLE, ""))
    all_shots = {
        name: NeuralSinterDecoder(second=spec.second) if spec.settings is None else ClassicalSinterDecoder(name=name)
        for name, spec in DECODERS.items()
    }
    discarding = {
        f"{name}-discard-{threshold!r}": NeuralSinterDecoder(second=spec.second, discard_below=threshold)
        for name, spec in DECODERS.items()
        if spec.settings is None
        for threshold in thresholds
    }
    return {**all_shots, **discarding, **_in_windows(os.environ.get(WINDOWS_VARIABLE, ""))}


def _in_windows(text: str) -> dict[str, sinter.Decoder]:
    """The classical decoders in each of the windows that a text names."""
    names = [
        f"{name}-window-{window.strip()}"
        for window in (text.split(",") if text.strip() else ())
        for name, spec in DECODERS.items()
        if spec.settings is not None
    ]
    for name in names:
        try:
            decoder_spec(name)
        except ValueError as error:
            raise ValueError(f"{WINDOWS_VARIABLE}={text!r} must hold windows such as 12-6: {error}") from None
    return {name: ClassicalSinterDecoder(name=name) for name in names}


def general_decoders() -> dict[str, sinter.Decoder]:
    """The classical decoders, which take any detector error model, not only that of a memory experiment."""
    return {name: ClassicalSinterDecoder(name=name) for name, spec in DECODERS.items() if spec.settings is not None}


@dataclass(frozen=True, kw_only=True)
class ClassicalSinterDecoder(sinter.Decoder):  # type: ignore[misc]
    """A classical decoder of the registry.

    One that uses XZ detectors uses those of one check type alone where a model has two, and that one predicts all
    observables; else every detector. `simulation.check_types` finds the types.
    """

    name: str
    """One of `decoder.catalog.DECODERS` with settings."""

    def compile_decoder_for_dem(self, *, dem: stim.DetectorErrorModel) -> sinter.CompiledDecoder:
        """Prepares to decode the shots of a model; see `sinter.Decoder`.

        Raises:
            ValueError: a model that this decoder cannot take, or its package is not installed.
        """
        return _Compiled(decoder_spec(self.name).classical(ForeignExperiment.unchecked(dem)))


@dataclass(frozen=True, kw_only=True)
class NeuralSinterDecoder(sinter.Decoder):  # type: ignore[misc]
    """The network, alone or with a second decoder for the shots that it is unsure of.

    The second decodes in the same process, since sinter's workers may have no children.

    Raises:
        ValueError: `discard_below` is not above 0 and below 1.
    """

    second: str | None = None
    """The classical decoder of the registry that gives second opinions; None for none."""
    discard_below: float | None = None
    """Shots whose coset, as the network predicts it, has a smaller posterior probability are discarded, whoever
    answers them; None keeps all shots."""
    weights: Path | None = None
    """Those of the network; None for those that are shipped for the experiment's code."""

    def __post_init__(self) -> None:
        if self.discard_below is not None and not 0 < self.discard_below < 1:
            raise ValueError(
                f"discard_below={self.discard_below} must be a probability above 0 and below 1; "
                "leave it out to keep all shots"
            )

    def compile_decoder_for_dem(self, *, dem: stim.DetectorErrorModel) -> sinter.CompiledDecoder:
        """Loads the network for a memory experiment's model; see `sinter.Decoder`.

        Raises:
            ValueError: the model is not that of a memory experiment that there are weights for.
            OSError: the weights cannot be read.
        """
        decoder = self._decoder(dem)
        return _Compiled(decoder) if self.discard_below is None else _Discarding(decoder, self.discard_below)

    def _decoder(self, dem: stim.DetectorErrorModel) -> SoftDecoder:
        from decoder.neural.decoder import NeuralDecoder  # torch takes seconds to import

        first = NeuralDecoder.for_dem(dem, weights=self.weights)
        if self.second is None:
            return first
        second = decoder_spec(self.second).classical(ForeignExperiment.unchecked(dem))
        return TandemDecoder(first, second, threshold=THRESHOLD)


class _Compiled(sinter.CompiledDecoder):  # type: ignore[misc]
    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def decode_shots_bit_packed(self, *, bit_packed_detection_event_data: npt.NDArray[np.uint8]) -> PackedBits:
        return predict_packed(self._decoder, bit_packed_detection_event_data)


class _Discarding(sinter.CompiledDecoder):  # type: ignore[misc]
    def __init__(self, decoder: SoftDecoder, threshold: float) -> None:
        self._decoder = decoder
        self._threshold = threshold

    def decode_shots_bit_packed(self, *, bit_packed_detection_event_data: npt.NDArray[np.uint8]) -> PackedBits:
        decoded = self._decoder.decode_soft(bit_packed_detection_event_data, bit_packed_shots=True)
        # sinter takes one byte more than the observables need for a flag: not 0 discards the shot
        # (classify_discards_and_errors in sinter/_decoding/_stim_then_decode_sampler.py).
        discarded = unsure(decoded.confidence, self._threshold)
        return np.column_stack([pack_bits(decoded.predictions), discarded.astype(np.uint8)])


def _thresholds(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text.strip() else []
    except ValueError:
        raise ValueError(
            f"{DISCARD_VARIABLE}={text!r} must hold probabilities with commas between them, such as 0.9,0.99"
        ) from None
