"""Does it know when it is wrong? A decoder's confidence against its failures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from decoder.base import SoftDecoder
from decoder.benchmark.common import (
    ProgressCallback,
    Reporter,
    check_request,
    failed_shots,
    failure_columns,
    make_decoders,
    with_confidence,
)
from decoder.benchmark.reporting.provenance import collect_provenance
from decoder.benchmark.reporting.report import prepare_directory, write_report
from decoder.benchmark.reporting.results import (
    Answers,
    BenchmarkResult,
    CalibrationPoint,
    LeastConfident,
    ReliabilityBin,
    experiment_columns,
)
from decoder.benchmark.runs import CalibrationRun
from decoder.statistics import binomial_interval, rate_with_interval, shots_in_share
from simulation.bits import pack_bits
from simulation.experiments import Experiment
from simulation.shots.sampling import Samples, sample, suggested_processes

BINS = 15
"""As many as in Guo et al., arXiv 1706.04599, table 1."""
SHARES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Of all shots: how many of the least confident ones are looked at."""


def run_calibration(
    experiments: Sequence[Experiment],
    decoder: str,
    run: CalibrationRun,
    *,
    progress: ProgressCallback | None = None,
) -> BenchmarkResult[CalibrationPoint]:
    """Compares the confidence of a decoder with its block failures.

    The confidence is the posterior probability of the predicted coset: that all observables are right
    together. The shots are those that `simulation.shots.sampling.sample` draws with this seed.

    Args:
        experiments: what to decode, such as one experiment at several p.
        decoder: a name from `decoder.catalog.DECODERS`, of a decoder that gives its confidence.
        run: how many shots, with which seed and weights, and where results are written.
        progress: called after each chunk of shots.

    Returns:
        One point for each experiment, the answers behind it, and their provenance.

    Raises:
        ValueError: an unknown decoder or one without confidence, no experiment or one twice, or weights that do not
            fit.
        OSError: the weights cannot be read, or `run.out` holds files or cannot be written.
    """
    check_request(experiments, [decoder])
    prepare_directory(run.out, force=run.force)
    made = [make_decoders(experiment, [decoder], weights=run.weights) for experiment in experiments]
    soft = [with_confidence(by_name[decoder], name=decoder) for by_name in made]
    report = Reporter(progress, total=len(experiments) * run.shots)
    processes = run.processes or suggested_processes(experiments[0].source, shots=run.shots)
    seed = run.seed
    points: list[CalibrationPoint] = []
    answers: list[Answers] = []
    for experiment, one in zip(experiments, soft, strict=True):
        samples = sample(experiment.source, shots=run.shots, seed=seed, processes=processes)
        seed = samples.seed
        of_shots, seconds = _decode(
            one,
            samples,
            chunk_shots=run.chunk_shots,
            progress=lambda shots, failures, of=experiment: report(shots, of, {decoder: failures}),  # type: ignore[misc]
        )
        answers.append(of_shots)
        points.append(_point(experiment, decoder, of_shots, seconds=seconds, seed=seed))
    provenance = collect_provenance(experiments, made)
    result = BenchmarkResult(points=tuple(points), provenance=provenance, answers=tuple(answers))
    write_report(result, run.out)
    return result


def sorted_answers(confidence: npt.ArrayLike, failed: npt.ArrayLike) -> Answers:
    """Orders shots by their confidence, the least sure first, so that the order they came in has no effect.

    Args:
        confidence: (shots,), from 0 to 1.
        failed: bool (shots,): whether each shot was a block failure.

    Raises:
        ValueError: no shot, not as many of the one as of the other, or a confidence outside [0, 1].
    """
    sure, wrong = np.asarray(confidence, np.float64), np.asarray(failed, np.bool_)
    if sure.ndim != 1 or sure.shape != wrong.shape or not sure.size:
        raise ValueError(
            f"confidence {sure.shape} and failed {wrong.shape} must hold one value for each of at least one shot"
        )
    if not ((sure >= 0) & (sure <= 1)).all():
        raise ValueError("each confidence must be a probability, from 0 to 1")
    order = np.lexsort((wrong, sure))
    return Answers(confidence=sure[order], failed=wrong[order])


def reliability_bins(answers: Answers, *, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """Groups shots by their confidence into bins of equal width, ((m - 1) / bins, m / bins] for m = 1 to bins.

    As Guo et al., arXiv 1706.04599, section 2, except that the first bin holds confidence 0 too.
    """
    edges = np.arange(bins + 1) / bins
    where = np.searchsorted(edges[1:], answers.confidence, side="left")
    shots = np.bincount(where, minlength=bins)
    failures = np.bincount(where[answers.failed], minlength=bins)
    total = np.bincount(where, weights=answers.confidence, minlength=bins)
    return tuple(
        ReliabilityBin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            shots=int(shots[i]),
            failures=int(failures[i]),
            mean_confidence=float(total[i] / shots[i]) if shots[i] else None,
        )
        for i in range(bins)
    )


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """The mean over all shots of |share of its bin decoded rightly - mean confidence of its bin|.

    Equation 3 of Guo et al., arXiv 1706.04599. By chance it is above 0 for perfect confidence too, in the
    mean over such samples by at most sqrt(filled bins / (4 shots)).

    Raises:
        ValueError: all bins are empty.
    """
    shots = sum(one.shots for one in bins)
    if not shots:
        raise ValueError("there is no shot in any of the bins")
    gaps = (abs(q.shots - q.failures - q.shots * q.mean_confidence) for q in bins if q.mean_confidence is not None)
    return sum(gaps) / shots


def brier_score(answers: Answers) -> float:
    """The mean squared distance of the confidence from 1 for a shot decoded rightly and 0 for a failure.

    Brier, Monthly Weather Review 78 (1950), for the event that the prediction is right, not over all cosets.
    """
    return float(np.mean((answers.confidence - ~answers.failed) ** 2))


def least_confident(answers: Answers, share: float) -> LeastConfident:
    """Counts the failures among the least confident shots, at most a share of all.

    They are the shots whose confidence is below that of the first one which no longer fits. So shots of
    equal confidence are in or out together, whatever their order, and the threshold finds the same shots again.

    Raises:
        ValueError: the share is not above 0 and below 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share} of the shots must be above 0 and below 1")
    threshold = float(answers.confidence[shots_in_share(share, len(answers.confidence))])
    shots = int(np.searchsorted(answers.confidence, threshold, side="left"))
    failures, of = int(answers.failed[:shots].sum()), int(answers.failed.sum())
    low, high = binomial_interval(failures, of) if of else (None, None)
    accepted = len(answers.failed) - shots
    ler, ler_low, ler_high = rate_with_interval(of - failures, accepted)
    return LeastConfident(
        share=share,
        shots=shots,
        failures=failures,
        failures_share=failures / of if of else None,
        failures_share_low=low,
        failures_share_high=high,
        threshold=threshold,
        accepted=accepted,
        accepted_failures=of - failures,
        accepted_ler=ler,
        accepted_ler_low=ler_low,
        accepted_ler_high=ler_high,
    )


def _decode(
    decoder: SoftDecoder, samples: Samples, *, chunk_shots: int, progress: Callable[[int, int], None]
) -> tuple[Answers, float]:
    """Decodes chunk by chunk and tells how many shots and how many failures so far; with it the seconds it took."""
    decoder.decode_soft(samples.detection_events[:1], bit_packed_shots=True)  # to warm up
    confidence, failed, seconds, failures = [], [], 0.0, 0
    for start in range(0, samples.shots, chunk_shots):
        events = samples.detection_events[start : start + chunk_shots]
        began = time.perf_counter()
        decoded = decoder.decode_soft(events, bit_packed_shots=True)
        seconds += time.perf_counter() - began
        confidence.append(decoded.confidence)
        flips = samples.observable_flips[start : start + chunk_shots]
        failed.append(failed_shots(pack_bits(decoded.predictions), flips))
        failures += int(failed[-1].sum())
        progress(len(events), failures)
    return sorted_answers(np.concatenate(confidence), np.concatenate(failed)), seconds


def _point(experiment: Experiment, decoder: str, answers: Answers, *, seconds: float, seed: int) -> CalibrationPoint:
    bins = reliability_bins(answers)
    return CalibrationPoint(
        **experiment_columns(experiment, decoder),
        **failure_columns(int(answers.failed.sum()), len(answers.failed)),
        seconds=seconds,
        seed=seed,
        ece=expected_calibration_error(bins),
        brier=brier_score(answers),
        mean_confidence=float(answers.confidence.mean()),
        bins=bins,
        least_confident=tuple(least_confident(answers, share) for share in SHARES),
    )
