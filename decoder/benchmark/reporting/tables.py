"""Results as CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from decoder.benchmark.counting.slopes import fit_slopes
from decoder.benchmark.reporting.results import (
    EXPERIMENT_COLUMNS,
    AccuracyPoint,
    BenchmarkResult,
    CalibrationPoint,
    DeadlinePoint,
    FailurePoint,
    LatencyPoint,
    LeastConfident,
    PostSelectedPoint,
    point_columns,
)


def to_csv(points: Sequence[FailurePoint]) -> str:
    """The columns of all points that hold one value, a header line first."""
    rows = [point_columns(point) for point in points]
    return rows_to_csv([{name: value for name, value in row.items() if not isinstance(value, tuple)} for row in rows])


def nested_csv(points: Sequence[FailurePoint], column: str) -> str:
    """A column that holds several entries, such as a calibration's bins: a row each, the experiment first."""
    rows = []
    for point in points:
        columns = point_columns(point)
        rows += [{name: columns[name] for name in EXPERIMENT_COLUMNS} | entry for entry in columns[column]]
    return rows_to_csv(rows)


def rows_to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same columns as CSV, a header line first."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_markdown(result: BenchmarkResult[Any]) -> str:
    """A table for people, for calibration a second one, then where they come from."""
    parts = [_markdown(_table(_columns(result.points[0]), result.points))]
    if isinstance(result.points[0], CalibrationPoint):
        parts.append(_markdown(least_confident_table(result.points)))
    if slopes := fit_slopes(result.points):
        parts.append("Fits of block LER = c p^slope, with 95 % intervals:\n")
        parts.append(_markdown(_table(_SLOPES, slopes)))
    return "\n".join([*parts, f"{_caption(result.points)}\n", _provenance(result.provenance)])


def least_confident_table(points: Sequence[CalibrationPoint]) -> list[list[str]]:
    """The failures among the least confident shots: headings, then a row for each point and share."""
    return _table(_LEAST_CONFIDENT, [(point, least) for point in points for least in point.least_confident])


def format_rate(point: FailurePoint) -> str:
    """The block failure rate with its 95 % interval in percent; an upper bound where nothing failed."""
    if point.failures == 0:
        return f"< {_percent(point.ler_high)}"
    return f"{_percent(point.ler)} ({_percent(point.ler_low)} to {_percent(point.ler_high)})"


def decoder_label(point: FailurePoint) -> str:
    """The decoder's name, with its deadline if it has one."""
    deadline_ms = point.deadline_ms if isinstance(point, DeadlinePoint) else None
    return point.decoder if deadline_ms is None else f"{point.decoder} ({deadline_ms:g} ms)"


def format_late(point: DeadlinePoint) -> str:
    """How many shots kept the first decoder's answer because of the deadline; a dash for decoders without one."""
    return "-" if point.late is None else f"{point.late:,}"


def format_accepted(accepted: int, shots: int) -> str:
    """How many shots are left, and their share in percent."""
    return f"{accepted:,}/{shots:,} ({100 * accepted / shots:.4g} %)"


def _format_accepted_rate(least: LeastConfident) -> str:
    """The failure rate without the least confident shots, as `format_rate` has it."""
    if least.accepted_failures == 0:
        return f"< {_percent(least.accepted_ler_high)}"
    ends = f"{_percent(least.accepted_ler_low)} to {_percent(least.accepted_ler_high)}"
    return f"{_percent(least.accepted_ler)} ({ends})"


def _format_ends(point: AccuracyPoint, column: str) -> str:
    """A rate that follows from the block failure rate, with its interval, in percent."""
    rate, low, high = (100 * getattr(point, f"{column}{end}") for end in ("", "_low", "_high"))
    return f"{rate:.3g} % ({low:.3g} % to {high:.3g} %)" if point.failures else f"< {high:.3g} %"


def _format_share(least: LeastConfident) -> str:
    """Which share of all failures the least confident shots hold, in percent, with its 95 % interval."""
    if least.failures_share is None or least.failures_share_low is None or least.failures_share_high is None:
        return "nothing failed"
    ends = f"{_percent(least.failures_share_low)} to {_percent(least.failures_share_high)}"
    return f"{_percent(least.failures_share)} ({ends})"


def format_time(microseconds: float | None) -> str:
    """Microseconds with three digits, in the unit that suits them; a dash for None."""
    if microseconds is None:
        return "-"
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= size:
            return f"{microseconds / size:.3g} {unit}"
    return f"{microseconds:.3g} µs"


def format_tail(point: LatencyPoint) -> str:
    """How many times as long as the median call the slowest one took."""
    ratio = point.max_us / point.p50_us
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"


def _confidence(value: float) -> str:
    """Four digits, of its distance to 1 where 1 is near."""
    return f"{value:.4g}" if value < 0.999 or value == 1 else f"1 - {1 - value:.4g}"


_Column = tuple[str, Callable[[Any], str]]

_EXPERIMENT: tuple[_Column, ...] = (
    ("code", lambda point: point.code),
    ("rounds", lambda point: str(point.rounds)),
    ("basis", lambda point: point.basis),
    ("p", lambda point: _percent(point.p)),
    ("noise", lambda point: point.noise),
    ("decoder", lambda point: decoder_label(point)),
    ("detectors", lambda point: point.detectors),
)
_FAILURES: tuple[_Column, ...] = (
    ("failures/shots", lambda point: f"{point.failures:,}/{point.shots:,}"),
    ("block LER", format_rate),
)
_RATES: tuple[_Column, ...] = (
    ("per round", lambda point: _format_ends(point, "per_round")),
    ("per round and qubit", lambda point: _format_ends(point, "per_qubit_round")),
    ("CPU time/shot", lambda point: format_time(1e6 * point.seconds / point.shots)),
)
_ACCURACY: tuple[_Column, ...] = (*_EXPERIMENT, *_FAILURES, *_RATES)
_POST_SELECTED: tuple[_Column, ...] = (
    *_EXPERIMENT,
    ("discarded below", lambda point: _confidence(point.discard_below)),
    ("accepted", lambda point: format_accepted(point.accepted, point.shots)),
    ("failures/accepted", lambda point: f"{point.failures:,}/{point.accepted:,}"),
    ("block LER of the accepted", format_rate),
    *_RATES,
)
_LATENCY: tuple[_Column, ...] = (
    *_EXPERIMENT,
    ("mode", lambda point: point.mode),
    ("batch", lambda point: str(point.batch)),
    *_FAILURES,
    ("mean", lambda point: format_time(point.mean_us)),
    ("p50", lambda point: format_time(point.p50_us)),
    ("p90", lambda point: format_time(point.p90_us)),
    ("p99", lambda point: format_time(point.p99_us)),
    ("p99.9", lambda point: format_time(point.p999_us)),
    ("p99.99", lambda point: format_time(point.p9999_us)),
    ("max", lambda point: format_time(point.max_us)),
    ("max/p50", format_tail),
    ("cores used", lambda point: f"{point.cores_used:.2f}"),
)
_DEADLINE: tuple[_Column, ...] = (*_LATENCY, ("late shots", format_late))
_CALIBRATION: tuple[_Column, ...] = (
    *_EXPERIMENT,
    *_FAILURES,
    ("mean confidence", lambda point: f"{100 * point.mean_confidence:.4g} %"),
    ("ECE", lambda point: f"{point.ece:.3g}"),
    ("Brier", lambda point: f"{point.brier:.3g}"),
    ("time/shot", lambda point: format_time(1e6 * point.seconds / point.shots)),
)
_SLOPES: tuple[_Column, ...] = (
    ("code", lambda slope: slope.code),
    ("rounds", lambda slope: str(slope.rounds)),
    ("basis", lambda slope: slope.basis),
    ("decoder", lambda slope: slope.decoder),
    ("detectors", lambda slope: slope.detectors),
    ("p", lambda slope: f"{_percent(slope.p_low)} to {_percent(slope.p_high)}"),
    ("slope", lambda slope: f"{slope.slope:.2f} ({slope.slope_low:.2f} to {slope.slope_high:.2f})"),
)
# Of pairs (point, one of its least confident shares).
_LEAST_CONFIDENT: tuple[_Column, ...] = (
    ("basis", lambda pair: pair[0].basis),
    ("p", lambda pair: _percent(pair[0].p)),
    ("least confident", lambda pair: _percent(pair[1].share)),
    ("shots", lambda pair: f"{pair[1].shots:,}"),
    ("confidence below", lambda pair: _confidence(pair[1].threshold)),
    ("failures/all failures", lambda pair: f"{pair[1].failures:,}/{pair[0].failures:,}"),
    ("share of failures", lambda pair: _format_share(pair[1])),
    ("accepted without them", lambda pair: format_accepted(pair[1].accepted, pair[0].shots)),
    ("failures/accepted", lambda pair: f"{pair[1].accepted_failures:,}/{pair[1].accepted:,}"),
    ("block LER of the accepted", lambda pair: _format_accepted_rate(pair[1])),
)


def _columns(first: FailurePoint) -> tuple[_Column, ...]:
    if isinstance(first, CalibrationPoint):
        return _CALIBRATION
    if isinstance(first, PostSelectedPoint):
        return _POST_SELECTED
    if isinstance(first, DeadlinePoint):
        return _DEADLINE
    return _LATENCY if isinstance(first, LatencyPoint) else _ACCURACY


def _table(columns: Sequence[_Column], rows: Sequence[Any]) -> list[list[str]]:
    return [[title for title, _ in columns], *([show(row) for _, show in columns] for row in rows)]


def _markdown(table: Sequence[Sequence[str]]) -> str:
    headings, *rows = table
    return "".join(f"| {' | '.join(line)} |\n" for line in [headings, ["---"] * len(headings), *rows])


def _caption(points: Sequence[FailurePoint]) -> str:
    caption = (
        "A block failure is a shot in which any observable is predicted wrongly, over all rounds. In "
        "brackets, and as the bound where nothing failed: exact 95 % binomial intervals. XZ: the decoder "
        "used the memory basis's detectors; XYZ: those of both bases. All decoders saw the same shots."
    )
    if isinstance(points[0], AccuracyPoint):
        caption += (
            " A decoder with fewer shots saw the first of them. Per round: 1 - (1 - block LER)^(1/rounds). Per round "
            "and qubit: the rate at which one observable flips in a round, if all do so independently. CPU time: on "
            "one thread, in batches of up to 1,024 shots, while other processes used the other cores."
        )
    if isinstance(points[0], PostSelectedPoint):
        caption += (
            " Accepted: the shots whose answer the decoder gives at least the stated probability to be right. Failures "
            "and rates are those of them; the others are discarded."
        )
    if isinstance(points[0], LatencyPoint):
        caption += (
            " Times are for each call with one batch of shots, on one thread, warm. Quantiles are observed times: p99 "
            "takes at least 100 calls, p99.9 1,000 and p99.99 10,000. Mode streamed: from the arrival of the last "
            "layer of detection events to the answer, all other layers having been handed over before. Cores used: "
            "CPU time of the process over the time that passed; less than 1 where others used the core."
        )
    if isinstance(points[0], DeadlinePoint):
        caption += (
            " A pair with a deadline, in brackets, has its second decoder in worker processes, on other cores where "
            "there are any; late shots keep the first decoder's answer."
        )
    if isinstance(points[0], CalibrationPoint):
        caption += (
            " The confidence is the posterior probability of the predicted coset. ECE: expected calibration error "
            f"over {len(points[0].bins)} bins of equal width (Guo et al., arXiv 1706.04599). Brier: mean squared "
            "distance of the confidence from 1 for a shot decoded rightly and 0 for a failure. The least confident "
            "shots are at most the given share of all; shots of equal confidence stay together. Accepted: all others."
        )
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
        f"machine: {_machine(machine)}",
        "versions: " + ", ".join(f"{name} {v}" for name, v in provenance["versions"].items() if v is not None),
    ]
    lines += [
        f"circuit {c['code']}, {c['basis']}, {c['rounds']} rounds, p = {_percent(c['p'])}, {c['noise']}: "
        f"sha256 {c['sha256']}"
        for c in provenance["circuits"]
    ]
    lines += [f"weights: {_pairs(entry)}" for entry in provenance["weights"]]
    return "".join(f"- {line}\n" for line in lines)


def _machine(machine: Mapping[str, Any]) -> str:
    parts = [
        machine["cpu"],
        f"{machine['usable_cores']} of {machine['cores']} cores",
        f"torch threads {machine['threads']}",
    ]
    if machine["memory_gib"] is not None:
        parts.append(f"{machine['memory_gib']} GiB memory")
    parts += [f"GPU {machine['gpu'] or 'none'}", machine["system"]]
    if machine["load_average"] is not None:
        parts.append(f"load average {', '.join(f'{load:.2f}' for load in machine['load_average'])} (1, 5, 15 minutes)")
    return ", ".join(parts)


def _pairs(entry: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in entry.items() if isinstance(value, str | int | float))
