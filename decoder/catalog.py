"""Decoders by name, as the command line, the benchmarks and the service ask for them, and what each name stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from decoder.base import BatchDecoder
from decoder.classical.bp import BRAVYI, LSD, OSD0, PLAIN_BP
from decoder.classical.mle import EXACT
from decoder.classical.relay_bp import RELAY_1, RELAY_5
from decoder.classical.reweighting import Reweighting
from decoder.classical.serial import SerialSettings
from decoder.classical.settings import DecoderSettings
from decoder.classical.tesseract import (
    LONG_BEAM,
    LONG_BEAM_SPARSIFIED,
    NARROW_BEAM_SPARSIFIED,
    SHORT_BEAM,
    SHORT_BEAM_SPARSIFIED,
)
from decoder.windows.decoder import WindowSettings
from simulation.bases import Detectors
from simulation.experiments import Experiment


@dataclass(frozen=True, kw_only=True)
class DecoderSpec:
    """What a decoder's name stands for."""

    name: str
    summary: str
    """One line for people."""
    detectors: Detectors
    """Which detectors it decodes with: XZ, those of the memory basis, or XYZ, those of both bases. Where there are no
    two check types, or both have observables, XZ is all detectors too."""
    settings: DecoderSettings | None
    """How a classical decoder decodes; None for the network, whose weights say that, and for pairs with it."""
    second: str | None = None
    """The decoder that gives second opinions in a pair, whose first decoder is the network."""

    def classical(self, experiment: Experiment, *, seconds: float | None = None) -> BatchDecoder:
        """Makes the classical decoder of an experiment; see `DecoderSettings.decoder`.

        Args:
            experiment: whose shots are to be decoded.
            seconds: see `DecoderSettings.limited`; None for no limit.

        Raises:
            ValueError: the decoder is not classical, its package is not installed, or it cannot take the experiment.
        """
        if self.settings is None:
            raise ValueError(f"the decoder {self.name!r} is not classical; use make_decoder")
        if self.settings.extra is not None:
            self.settings.extra.require(f"the decoder {self.name!r}")
        settings = self.settings if seconds is None else self.settings.limited(seconds)
        decoder = settings.decoder(experiment, detectors=self.detectors)
        if not isinstance(settings, WindowSettings):
            decoder.reweighting = Reweighting(experiment, settings, self.detectors)
        return decoder


def _classical(name: str, detectors: Detectors, settings: DecoderSettings, summary: str) -> DecoderSpec:
    return DecoderSpec(name=name, summary=summary, detectors=detectors, settings=settings)


def _pair(name: str, second: str, summary: str) -> DecoderSpec:
    return DecoderSpec(name=name, summary=summary, detectors="XYZ", settings=None, second=second)


_SPECS = (
    DecoderSpec(
        name="neural",
        summary="serial, with a network that judges the shots whose solutions disagree",
        detectors="XYZ",
        settings=None,
    ),
    _classical(
        "bposd", "XZ", BRAVYI, "BP-OSD with the settings of Bravyi et al.: min-sum, 10,000 iterations, OSD-CS 7"
    ),
    _classical("bposd-xyz", "XYZ", BRAVYI, "BP-OSD with the settings of Bravyi et al. on both bases' detectors (slow)"),
    _classical("bposd-osd0", "XZ", OSD0, "BP-OSD with no slow tail: min-sum, 30 iterations, OSD-0"),
    _classical("bp", "XZ", PLAIN_BP, "belief propagation alone: that of bposd"),
    _classical("bplsd", "XZ", LSD, "BP-LSD: the belief propagation of bposd, LSD-0"),
    _classical("relay-1", "XZ", RELAY_1, "Relay-BP, the first solution"),
    _classical("relay-5", "XZ", RELAY_5, "Relay-BP, the likeliest of five solutions"),
    _classical("relay-1-xyz", "XYZ", RELAY_1, "Relay-BP on both bases' detectors, the first solution"),
    _classical("relay-5-xyz", "XYZ", RELAY_5, "Relay-BP on both bases' detectors, the likeliest of five solutions"),
    _classical("tesseract-short", "XYZ", SHORT_BEAM, "Tesseract's short beam (slow)"),
    _classical("tesseract-long", "XYZ", LONG_BEAM, "Tesseract's long beam (very slow)"),
    _classical("tesseract-short-sparsify", "XYZ", SHORT_BEAM_SPARSIFIED, "Tesseract's short beam, sparsified"),
    _classical("tesseract-long-sparsify", "XYZ", LONG_BEAM_SPARSIFIED, "Tesseract's long beam, sparsified (slow)"),
    _classical("mle", "XYZ", EXACT, "the likeliest error by integer programming: exact, for small cases"),
    _classical(
        "serial-deep",
        "XYZ",
        SerialSettings(deep=True, seed=1),
        "serial with other row orders, far more passes and several times as many solutions (slow)",
    ),
    _classical(
        "tesseract-narrow-sparsify",
        "XYZ",
        NARROW_BEAM_SPARSIFIED,
        "Tesseract, a third of the short beam, sparsified",
    ),
    _pair("tandem", "serial-deep", "the network, and serial-deep for the shots that it is unsure of"),
    _pair(
        "tandem-tesseract",
        "tesseract-narrow-sparsify",
        "the network, and Tesseract's narrow beam for the shots that it is unsure of",
    ),
    _classical(
        "serial",
        "XYZ",
        SerialSettings(),
        "serial belief propagation on the exact graph, several row orders (one graph, where no coordinates tell types)",
    ),
    _classical(
        "serial-1",
        "XYZ",
        SerialSettings(first_solution=True),
        "the first solution of serial, as a single GARI decoder gives it",
    ),
)

DECODERS: Mapping[str, DecoderSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})
"""All decoders, the first being the default; also those whose packages are not installed."""


SUCCESSORS: Mapping[str, str] = MappingProxyType({"relay-split": "serial", "relay-deep": "serial-deep"})
"""Decoders that are gone, and what has taken their place."""

_IN_WINDOWS = re.compile(r"(?P<inner>.+)-window-(?P<window>[0-9]{1,4})-(?P<commit>[0-9]{1,4})")


def decoder_spec(name: str) -> DecoderSpec:
    """Looks a decoder up.

    NAME-window-W-C is the classical decoder NAME in windows of W layers, of which C are fixed; see `decoder.windows`.

    Raises:
        ValueError: no decoder has that name, or no longer; one in windows is not classical, or its windows make no
            sense.
    """
    if name in DECODERS:
        return DECODERS[name]
    found = _IN_WINDOWS.fullmatch(name)
    gone = name if found is None else found["inner"]
    if gone in SUCCESSORS:
        raise ValueError(f"the decoder {gone!r} is gone: {SUCCESSORS[gone]!r} has taken its place")
    if found is None or found["inner"] not in DECODERS:
        raise ValueError(f"unknown decoder {name!r}: use one of {', '.join(DECODERS)}")
    return windowed(DECODERS[found["inner"]], window=int(found["window"]), commit=int(found["commit"]))


def windowed(spec: DecoderSpec, *, window: int, commit: int) -> DecoderSpec:
    """A decoder in sliding windows.

    Raises:
        ValueError: it is not classical, or the windows make no sense.
    """
    if spec.settings is None:
        raise ValueError(f"the decoder {spec.name!r} tells no errors to fix in windows; use serial or bposd")
    return replace(
        spec,
        name=f"{spec.name}-window-{window}-{commit}",
        summary=f"{spec.summary}, in windows of {window} layers, {commit} of them fixed",
        settings=WindowSettings(inner=spec.settings, window=window, commit=commit),
    )


@dataclass(frozen=True)
class ClassicalDecoder:
    """Makes a classical decoder of an experiment; a value that can be sent to other processes."""

    name: str
    """One of `DECODERS`."""
    seconds: float | None = None
    """See `DecoderSettings.limited`; None for no limit."""

    def __post_init__(self) -> None:
        if decoder_spec(self.name).settings is None:
            classical = ", ".join(name for name, spec in DECODERS.items() if spec.settings is not None)
            raise ValueError(f"{self.name!r} is not classical: use one of {classical}")

    def __call__(self, experiment: Experiment) -> BatchDecoder:
        """The decoder of an experiment; see `DecoderSpec.classical`."""
        return decoder_spec(self.name).classical(experiment, seconds=self.seconds)


def detectors_used(name: str) -> Detectors:
    """Which detectors a decoder decodes with: "XZ" or "XYZ".

    Raises:
        ValueError: no decoder has that name.
    """
    return decoder_spec(name).detectors


def has_weights(name: str) -> bool:
    """Whether a decoder is the network, or a pair with it.

    Raises:
        ValueError: no decoder has that name.
    """
    return decoder_spec(name).settings is None
