"""Results as CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from decoder.benchmark.results import AccuracyPoint, BenchmarkResult, LatencyPoint, point_columns


def to_csv(points: Sequence[AccuracyPoint]) -> str:
    """All columns of all points, a header line first."""
    rows = [point_columns(point) for point in points]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_markdown(result: BenchmarkResult[Any]) -> str:
    """A table for people, then where it comes from."""
    return f"{_table(result.points)}\n{_caption(result.points)}\n\n{_provenance(result.provenance)}"


def format_rate(point: AccuracyPoint) -> str:
    """The block failure rate with its 95 % interval in percent; an upper bound where nothing failed."""
    if point.failures == 0:
        return f"< {_percent(point.ler_high)}"
    return f"{_percent(point.ler)} ({_percent(point.ler_low)} to {_percent(point.ler_high)})"


def format_time(microseconds: float) -> str:
    """Microseconds with three digits, in the unit that suits them."""
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= size:
            return f"{microseconds / size:.3g} {unit}"
    return f"{microseconds:.3g} µs"


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"


_Column = tuple[str, Callable[[Any], str]]

_EXPERIMENT: tuple[_Column, ...] = (
    ("code", lambda point: point.code),
    ("rounds", lambda point: str(point.rounds)),
    ("basis", lambda point: point.basis),
    ("p", lambda point: _percent(point.p)),
    ("noise", lambda point: point.noise),
    ("decoder", lambda point: point.decoder),
    ("detectors", lambda point: point.detectors),
)
_FAILURES: tuple[_Column, ...] = (
    ("failures/shots", lambda point: f"{point.failures:,}/{point.shots:,}"),
    ("block LER", format_rate),
)
_ACCURACY: tuple[_Column, ...] = (
    *_EXPERIMENT,
    *_FAILURES,
    ("time/shot", lambda point: format_time(1e6 * point.seconds / point.shots)),
)
_LATENCY: tuple[_Column, ...] = (
    *_EXPERIMENT,
    ("batch", lambda point: str(point.batch)),
    *_FAILURES,
    ("mean", lambda point: format_time(point.mean_us)),
    ("p50", lambda point: format_time(point.p50_us)),
    ("p90", lambda point: format_time(point.p90_us)),
    ("p99", lambda point: format_time(point.p99_us)),
    ("p99.9", lambda point: format_time(point.p999_us)),
    ("max", lambda point: format_time(point.max_us)),
)


def _table(points: Sequence[AccuracyPoint]) -> str:
    columns = _LATENCY if isinstance(points[0], LatencyPoint) else _ACCURACY
    lines = [[title for title, _ in columns], ["---"] * len(columns)]
    lines += [[show(point) for _, show in columns] for point in points]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _caption(points: Sequence[AccuracyPoint]) -> str:
    caption = (
        "A block failure is a shot in which any observable is predicted wrongly, over all rounds. In "
        "brackets, and as the bound where nothing failed: exact 95 % binomial intervals. XZ: the decoder "
        "used the memory basis's detectors; XYZ: those of both bases. All decoders saw the same shots."
    )
    if isinstance(points[0], LatencyPoint):
        caption += " Times are for each call with one batch of shots, on one thread."
    return caption


def _provenance(provenance: Mapping[str, Any]) -> str:
    git, machine = provenance["git"], provenance["machine"]
    commit = "not in git"
    if git is not None:
        commit = git["commit"] + ("" if git["clean"] else " with changes")
    lines = [
        f"command: `{provenance['command']}`",
        f"time: {provenance['time']}",
        f"commit: {commit}",
        f"machine: {machine['cpu']}, {machine['usable_cores']} of {machine['cores']} cores, "
        f"{machine['threads']} threads, GPU {machine['gpu'] or 'none'}",
        "versions: " + ", ".join(f"{name} {v}" for name, v in provenance["versions"].items() if v is not None),
    ]
    lines += [
        f"circuit {c['code']}, {c['basis']}, {c['rounds']} rounds, p = {_percent(c['p'])}, {c['noise']}: "
        f"sha256 {c['sha256']}"
        for c in provenance["circuits"]
    ]
    lines += [f"weights: {_pairs(entry)}" for entry in provenance["weights"]]
    return "".join(f"- {line}\n" for line in lines)


def _pairs(entry: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in entry.items() if isinstance(value, str | int | float))
