"""How sure a decoder is of the shots of `tandem decode`: in a file, in a line, and as a warning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from decoder.base import Decoder, Decoding
    from simulation.bits import PackedBits
    from simulation.experiments import Experiment

FORMATS = (".npz", ".csv")
LOW = 0.95
"""A mean confidence below this is compared with that of shots that are the experiment's for sure."""
REFERENCE_SHOTS = 256
REFERENCE_SEED = 1
SIGMAS = 6.0


def check_confidence_file(path: Path | None) -> None:
    """Refuses a file whose name does not say a format.

    Raises:
        ValueError: it ends with neither .npz nor .csv.
    """
    if path is not None and path.suffix not in FORMATS:
        raise ValueError(f"--confidence-out is a file of numpy's (.npz) or of text (.csv), not {path.name!r}")


def write_confidence(path: Path, decoding: Decoding, *, force: bool) -> None:
    """Writes `confidence` (shots,) and `flip_probabilities` (shots, observables): npz, or csv with a row a shot.

    Raises:
        OSError: see `simulation.files.atomic_write`.
    """
    from simulation.files import atomic_write

    confidence, flips = decoding.confidence, decoding.flip_probabilities
    with atomic_write(path, force=force) as partial, partial.open("wb") as file:
        if path.suffix == ".npz":
            np.savez_compressed(file, confidence=confidence, flip_probabilities=flips)
            return
        names = ",".join(["confidence", *(f"flip_{observable}" for observable in range(flips.shape[1]))])
        formats = ["%.17g"] + ["%.9g"] * flips.shape[1]  # so that they are read back to the last bit
        rows = np.column_stack([confidence, flips.astype(np.float64)])
        np.savetxt(file, rows, fmt=formats, delimiter=",", header=names, comments="")


def doubts(decoder: Decoder, experiment: Experiment, shots: PackedBits, decoding: Decoding | None) -> list[str]:
    """Why the shots can hardly be those of the experiment: one line each, none if nothing looks wrong."""
    from simulation.shots.plausibility import Expected

    doubt = Expected.of(experiment.fault_model).doubt(shots)
    found = [] if doubt is None else [doubt]
    if decoding is not None and decoding.confidence.mean() < LOW:
        from decoder.base import SoftDecoder
        from simulation.shots.sampling import sample

        decoder = getattr(decoder, "first", decoder)  # that of a pair, whose confidence it is
        assert isinstance(decoder, SoftDecoder)
        known = sample(experiment.source, shots=REFERENCE_SHOTS, seed=REFERENCE_SEED).detection_events
        reference = decoder.decode_soft(known, bit_packed_shots=True).confidence
        lower = reference.mean() - decoding.confidence.mean()
        error = np.sqrt(reference.var() / len(reference) + decoding.confidence.var() / len(decoding))
        if lower > max(0.05, SIGMAS * error):
            found.append(
                f"the mean confidence is {decoding.confidence.mean():.3g}, where shots of this experiment have "
                f"{reference.mean():.3g}; are they of another basis, code, noise or number of rounds?"
            )
    return found
