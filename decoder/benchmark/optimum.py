"""How far from the optimum? Which failures the most likely error shares, and which a better decoder could recover."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from decoder.benchmark.certificates import EXTRA, Certifier, Proof, Verdict
from decoder.benchmark.common import BenchmarkProgress, ProgressCallback, failure_columns
from decoder.benchmark.counting.accuracy import count, paired_failures, write_stats
from decoder.benchmark.counting.tally import Tally
from decoder.benchmark.reporting.optimum_point import OPTIMUM, OptimumPoint
from decoder.benchmark.reporting.provenance import circuit_sha256
from decoder.benchmark.reporting.report import write_report
from decoder.benchmark.reporting.results import AccuracyPoint, BenchmarkResult, per_round_columns
from decoder.benchmark.runs import AccuracyRun, CertificateRun
from decoder.statistics import binomial_interval
from simulation.bits import Bits
from simulation.experiments import Experiment
from simulation.shots.sampling import CHUNK_SHOTS, sample

PROOFS_FILE = "proofs.csv"
"""What is proved so far, shot by shot: a killed run goes on from it."""
COLUMNS = ("sha256", "seed", "shot", "verdict", "seconds")


Proofs = dict[int, Proof]
"""By the number of the shot."""


def run_optimum(
    experiments: Sequence[Experiment],
    decoders: Sequence[str],
    run: AccuracyRun,
    certify: CertificateRun,
    *,
    progress: ProgressCallback | None = None,
) -> BenchmarkResult[OptimumPoint]:
    """Counts failures as `run_accuracy` does, and proves of each failed shot whether the most likely error is right.

    Args:
        experiments: what to decode.
        decoders: names from `decoder.catalog.DECODERS`.
        run: how failures are counted; with `out` the proofs are kept there too, and `resume` goes on with them.
        certify: which shots are certified, and for how long each.
        progress: called after each block and each proof.

    Returns:
        One point for each experiment and decoder; with `all_shots` also one of the most likely error itself.

    Raises:
        ValueError: see `count` and `Certifier`; shots that are discarded, or counts without the numbers of the shots.
        OSError: see `count`.
    """
    if run.discard_below is not None:
        raise ValueError("the optimum is compared on all shots; leave --discard-below out")
    EXTRA.require("'tandem benchmark optimum'")
    for experiment in experiments:
        Certifier(experiment, seconds=certify.certify_seconds)  # refuses what it cannot take before shots are decoded
    tallies, provenance = count(experiments, decoders, run, progress=progress)
    file = None if run.out is None else _ProofsFile(run.out / PROOFS_FILE, anew=not run.resume)
    points: list[OptimumPoint] = []
    for experiment in experiments:
        mine = [tally for tally in tallies if tally.trial.experiment == experiment]
        wanted = range(mine[0].total.shots) if certify.all_shots else sorted(set().union(*map(_failed, mine)))
        proofs = _prove(experiment, mine[0].trial.seed, wanted, certify, file=file, progress=progress)
        points += [_split(tally.point(), (proofs[shot] for shot in _failed(tally))) for tally in mine]
        if certify.all_shots:
            points.append(_of_the_optimum(mine[0].point(), proofs, experiment))
    result = BenchmarkResult(points=tuple(points), provenance=provenance, paired=paired_failures(tallies))
    write_report(result, run.out)
    write_stats(tallies, run.out)
    return result


def _failed(tally: Tally) -> frozenset[int]:
    failed = tally.failed()
    if failed is None:
        raise ValueError(
            f"the counts of {tally.trial.decoder} do not say which shots failed, as an older version made them; choose "
            "another --out, or begin anew with --force"
        )
    return failed.numbers


def _prove(
    experiment: Experiment,
    seed: int,
    wanted: Sequence[int],
    certify: CertificateRun,
    *,
    file: _ProofsFile | None,
    progress: ProgressCallback | None,
) -> Proofs:
    """The proofs of shots, made as far as the file does not hold them."""
    key = circuit_sha256(experiment)[:16], seed
    proofs = {} if file is None else file.proofs(*key, seconds=certify.certify_seconds)
    shots = _Shots(experiment, seed)
    with Certifier(experiment, seconds=certify.certify_seconds) as certifier:
        for done, shot in enumerate(wanted, 1):
            if shot not in proofs:
                proofs[shot] = certifier.prove(*shots.of(shot))
                if file is not None:
                    file.append(*key, shot, proofs[shot])
            if progress is not None:
                verdicts = Counter(proof.verdict.value for proof in proofs.values())
                progress(BenchmarkProgress(done=done, total=len(wanted), experiment=experiment, failures=verdicts))
    return {shot: proofs[shot] for shot in wanted}


class _Shots:
    """Single shots of a run, in any order, drawn chunk by chunk."""

    def __init__(self, experiment: Experiment, seed: int) -> None:
        self._experiment, self._seed = experiment, seed
        self._first, self._events, self._flips = -1, np.empty((0, 0), np.bool_), np.empty((0, 0), np.bool_)

    def of(self, shot: int) -> tuple[Bits, Bits]:
        """Detection events, bool (detectors,), and flips, bool (observables,)."""
        first = shot - shot % CHUNK_SHOTS
        if first != self._first:
            drawn = sample(self._experiment.source, shots=CHUNK_SHOTS, seed=self._seed, first=first)
            self._first, self._events = first, drawn.unpacked_detection_events()
            self._flips = drawn.unpacked_observable_flips()
        return self._events[shot - first], self._flips[shot - first]


def _split(point: AccuracyPoint, proofs: Iterable[Proof]) -> OptimumPoint:
    verdicts = Counter(proof.verdict for proof in proofs)
    wrong, right = verdicts[Verdict.WRONG], verdicts[Verdict.RIGHT]
    return OptimumPoint(**vars(point), intrinsic=wrong, recoverable=right, unknown=point.failures - wrong - right)


def _of_the_optimum(beside: AccuracyPoint, proofs: Proofs, experiment: Experiment) -> OptimumPoint:
    verdicts = Counter(proof.verdict for proof in proofs.values())
    wrong, shots = verdicts[Verdict.WRONG], len(proofs)
    unknown = shots - wrong - verdicts[Verdict.RIGHT]
    rates = failure_columns(wrong, shots) | {"ler_high": binomial_interval(wrong + unknown, shots)[1]}
    rounds, qubits = experiment.columns["rounds"], experiment.num_observables
    changed = {
        "decoder": OPTIMUM,
        "detectors": "XYZ",
        "seconds": sum(proof.seconds for proof in proofs.values()),
        **rates,
        **per_round_columns(rates, rounds=rounds, qubits=qubits),
    }
    return OptimumPoint(**vars(beside) | changed, intrinsic=wrong, recoverable=0, unknown=unknown)


class _ProofsFile:
    """Proofs of all experiments of a run, a line each, added as soon as they are made."""

    def __init__(self, path: Path, *, anew: bool) -> None:
        self._path = path
        if anew or not path.exists():
            path.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")

    def proofs(self, sha256: str, seed: int, *, seconds: float) -> Proofs:
        """Those of one experiment and seed, but those that came late within less than so much time.

        Raises:
            ValueError: a line is not one of this file; OSError: it cannot be read.
        """
        found: Proofs = {}
        lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines[1:], 2):
            try:
                of, drawn, shot, verdict, took = line.split(",")
                proof = Proof(Verdict(verdict), float(took))
                key, numbered = (of, int(drawn)), int(shot)
            except ValueError:
                raise ValueError(
                    f"{self._path}, line {number}, is not a whole proof; delete that line, and the shot is certified "
                    "again"
                ) from None
            if key == (sha256, seed) and not (proof.verdict is Verdict.LATE and proof.seconds < seconds):
                found[numbered] = proof
        return found

    def append(self, sha256: str, seed: int, shot: int, proof: Proof) -> None:
        """Adds a proof."""
        with self._path.open("a", encoding="utf-8") as out:
            print(sha256, seed, shot, proof.verdict.value, f"{proof.seconds:.3f}", sep=",", file=out)
