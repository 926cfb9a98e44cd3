"""Results as CSV, as Markdown, and as tables of a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from decoder.benchmark.counting.paired import PairedFailures
from decoder.benchmark.counting.slopes import fit_slopes
from decoder.benchmark.reporting.optimum_point import OptimumPoint
from decoder.benchmark.reporting.provenance import describe
from decoder.benchmark.reporting.results import (
    EXPERIMENT_COLUMNS,
    BenchmarkResult,
    CalibrationPoint,
    DeadlinePoint,
    FailurePoint,
    LatencyPoint,
    LeastConfident,
    PostSelectedPoint,
    Rate,
    point_columns,
)
from decoder.benchmark.reporting.words import WORDS


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
    points = result.points
    columns, _ = _columns(points[0])
    parts = [markdown_table(_table((*_EXPERIMENT, *columns), points))]
    if isinstance(points[0], CalibrationPoint):
        parts.append(markdown_table(least_confident_table(points)))
    if result.paired:
        parts.append("On the same shots, how often two decoders failed, and how often one alone:\n")
        parts.append(markdown_table(paired_table(result.paired)))
    if slopes := fit_slopes(points):
        parts.append("Fits of block LER = c p^slope, with 95 % intervals:\n")
        parts.append(markdown_table(_table(_SLOPES, slopes)))
    return "\n".join([*parts, f"{_caption(points[0])}\n", describe(result.provenance)])


def terminal_table(points: Sequence[FailurePoint]) -> tuple[str, list[list[str]]]:
    """What a terminal has room for: a title of what all points share, headings, and a row for each point."""
    first = points[0]
    several = [name for name in ("code", "basis", "rounds") if len({getattr(point, name) for point in points}) > 1]
    shared = {
        "code": first.code,
        "basis": "" if first.basis == "-" else f"{first.basis} memory",
        "rounds": _rounds(first),
    }
    title = [text for name, text in shared.items() if text and name not in several]
    varying = [column for column in _EXPERIMENT if column[0] in several]
    varying.sort(key=lambda column: several.index(column[0]))
    decoded: tuple[_Column, ...] = (
        ("p", lambda point: "-" if point.p is None else f"{point.p:g}"),
        ("decoder", lambda point: f"{decoder_label(point)} {point.detectors}"),
    )
    _, columns = _columns(first)
    rows = _table((*varying, *decoded, *columns), points)
    return ", ".join([*title, f"{first.noise} noise", f"seed {first.seed}"]), rows


def least_confident_table(points: Sequence[CalibrationPoint]) -> list[list[str]]:
    """The failures among the least confident shots: headings, then a row for each point and share."""
    return _table(_LEAST_CONFIDENT, [(point, least) for point in points for least in point.least_confident])


def paired_table(paired: Sequence[PairedFailures]) -> list[list[str]]:
    """Two decoders on the same shots: headings, then a row for each two."""
    return _table(_PAIRED, paired)


def format_rate(point: FailurePoint) -> str:
    """The block failure rate with its 95 % interval in percent; an upper bound where nothing failed."""
    return _interval(Rate.of(point))


def decoder_label(point: FailurePoint) -> str:
    """The decoder's name, with its deadline if it has one."""
    deadline_ms = point.deadline_ms if isinstance(point, DeadlinePoint) else None
    return point.decoder if deadline_ms is None else f"{point.decoder} ({deadline_ms:g} ms)"


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


def _interval(rate: Rate) -> str:
    if rate.failures == 0:
        return f"< {_percent(rate.high)}"
    return f"{_percent(rate.value)} ({_percent(rate.low)} to {_percent(rate.high)})"


def _of_a_round(point: FailurePoint, column: str) -> str:
    return "-" if point.rounds is None else _interval(Rate.of(point, column))


def _rounds(point: FailurePoint) -> str:
    return "" if point.rounds is None else f"{point.rounds} rounds"


def _accepted(accepted: int, shots: int) -> str:
    return f"{accepted:,}/{shots:,} ({100 * accepted / shots:.4g} %)"


def _share_of_failures(least: LeastConfident) -> str:
    if least.failures_share is None:
        return "nothing failed"
    ends = least.failures_share_low or 0.0, least.failures_share_high or 0.0
    return _interval(Rate(1, least.failures_share, *ends))


def _time_a_shot(point: FailurePoint) -> str:
    return format_time(1e6 * point.seconds / point.shots)


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"


def _confidence(value: float) -> str:
    """Four digits, of its distance to 1 where 1 is near."""
    return f"{value:.4g}" if value < 0.999 or value == 1 else f"1 - {1 - value:.4g}"


_Column = tuple[str, Callable[[Any], str]]

_EXPERIMENT: tuple[_Column, ...] = (
    ("code", lambda point: point.code),
    ("rounds", lambda point: "-" if point.rounds is None else str(point.rounds)),
    ("basis", lambda point: point.basis),
    ("p", lambda point: "-" if point.p is None else _percent(point.p)),
    ("noise", lambda point: point.noise),
    ("decoder", lambda point: decoder_label(point)),
    ("detectors", lambda point: point.detectors),
)
_COUNTS: _Column = ("failures/shots", lambda point: f"{point.failures:,}/{point.judged:,}")
_FAILURES: tuple[_Column, ...] = (_COUNTS, ("block LER", format_rate))
_PER_ROUND: tuple[_Column, ...] = (
    ("per round", lambda point: _of_a_round(point, "per_round")),
    ("per round and qubit", lambda point: _of_a_round(point, "per_qubit_round")),
    ("CPU time/shot", _time_a_shot),
)
_ACCEPTED: _Column = ("accepted", lambda point: _accepted(point.accepted, point.shots))
_POST_SELECTED: tuple[_Column, ...] = (
    ("discarded below", lambda point: _confidence(point.discard_below)),
    _ACCEPTED,
    ("failures/accepted", _COUNTS[1]),
    ("block LER of the accepted", format_rate),
    *_PER_ROUND,
)
_OPTIMUM: tuple[_Column, ...] = (
    ("intrinsic", lambda point: f"{point.intrinsic:,}"),
    ("recoverable", lambda point: f"{point.recoverable:,}"),
    ("unknown", lambda point: f"{point.unknown:,}"),
)
_CALLS: tuple[_Column, ...] = (("mode", lambda point: point.mode), ("batch", lambda point: str(point.batch)))
_TIMES: tuple[_Column, ...] = (
    ("mean", lambda point: format_time(point.mean_us)),
    ("p50", lambda point: format_time(point.p50_us)),
    ("p90", lambda point: format_time(point.p90_us)),
    ("p99", lambda point: format_time(point.p99_us)),
    ("p99.9", lambda point: format_time(point.p999_us)),
    ("p99.99", lambda point: format_time(point.p9999_us)),
    ("max", lambda point: format_time(point.max_us)),
    ("max/p50", format_tail),
)
_CORES: _Column = ("cores used", lambda point: f"{point.cores_used:.2f}")


def _late(point: DeadlinePoint) -> str:
    return "-" if point.late is None else f"{point.late:,}"


_TRUST: tuple[_Column, ...] = (
    ("mean confidence", lambda point: f"{100 * point.mean_confidence:.4g} %"),
    ("ECE", lambda point: f"{point.ece:.3g}"),
    ("Brier", lambda point: f"{point.brier:.3g}"),
)
_CURVE = ("code", "rounds", "basis", "decoder", "detectors")
_SLOPES: tuple[_Column, ...] = (
    *((name, lambda slope, name=name: str(getattr(slope.first, name))) for name in _CURVE),
    ("p", lambda slope: f"{_percent(slope.p_low)} to {_percent(slope.p_high)}"),
    ("slope", lambda slope: f"{slope.slope:.2f} ({slope.slope_low:.2f} to {slope.slope_high:.2f})"),
)
_PAIRED: tuple[_Column, ...] = (
    ("code", lambda pair: pair.code),
    ("basis", lambda pair: pair.basis),
    ("rounds", lambda pair: "-" if pair.rounds is None else str(pair.rounds)),
    ("p", lambda pair: "-" if pair.p is None else _percent(pair.p)),
    ("first", lambda pair: pair.first),
    ("second", lambda pair: pair.second),
    ("shots", lambda pair: f"{pair.shots:,}"),
    ("both failed", lambda pair: f"{pair.both:,}"),
    ("first alone", lambda pair: f"{pair.first_only:,}"),
    ("second alone", lambda pair: f"{pair.second_only:,}"),
    ("McNemar's p-value", lambda pair: f"{pair.p_value:.2g}"),
)
# Of pairs (point, one of its least confident shares).
_LEAST_CONFIDENT: tuple[_Column, ...] = (
    ("basis", lambda pair: pair[0].basis),
    ("p", lambda pair: "-" if pair[0].p is None else _percent(pair[0].p)),
    ("least confident", lambda pair: _percent(pair[1].share)),
    ("shots", lambda pair: f"{pair[1].shots:,}"),
    ("confidence below", lambda pair: _confidence(pair[1].threshold)),
    ("failures/all failures", lambda pair: f"{pair[1].failures:,}/{pair[0].failures:,}"),
    ("share of failures", lambda pair: _share_of_failures(pair[1])),
    ("accepted without them", lambda pair: _accepted(pair[1].accepted, pair[0].shots)),
    ("failures/accepted", lambda pair: f"{pair[1].accepted_failures:,}/{pair[1].accepted:,}"),
    ("block LER of the accepted", lambda pair: _interval(pair[1].accepted_rate)),
)
_RATE: _Column = ("block failure rate (95 % interval)", format_rate)
_ACCEPTED_RATES: tuple[_Column, ...] = (
    ("failures/accepted", _COUNTS[1]),
    ("block failure rate of the accepted (95 % interval)", format_rate),
)


def _columns(point: FailurePoint) -> tuple[tuple[_Column, ...], tuple[_Column, ...]]:
    """What follows the experiment's columns in a file, and what in a terminal."""
    cpu_time = ("CPU time a shot", _time_a_shot)
    if isinstance(point, CalibrationPoint):
        return (*_FAILURES, *_TRUST, ("time/shot", _time_a_shot)), (
            _COUNTS,
            _RATE,
            *_TRUST,
            ("time a shot", _time_a_shot),
        )
    if isinstance(point, OptimumPoint):
        return (*_FAILURES, *_OPTIMUM, *_PER_ROUND), (_COUNTS, _RATE, *_OPTIMUM, cpu_time)
    if isinstance(point, PostSelectedPoint):
        return _POST_SELECTED, (_ACCEPTED, *_ACCEPTED_RATES, cpu_time)
    if not isinstance(point, LatencyPoint):
        return (*_FAILURES, *_PER_ROUND), (_COUNTS, _RATE, cpu_time)
    in_file, in_terminal = (*_CALLS, *_FAILURES, *_TIMES, _CORES), (*_CALLS, ("failed", _COUNTS[1]), *_TIMES)
    if isinstance(point, DeadlinePoint):
        return (*in_file, ("late shots", _late)), (*in_terminal, ("late", _late))
    return in_file, in_terminal


def _table(columns: Sequence[_Column], rows: Sequence[Any]) -> list[list[str]]:
    return [[title for title, _ in columns], *([show(row) for _, show in columns] for row in rows)]


def markdown_table(table: Sequence[Sequence[str]]) -> str:
    """Headings and rows as a table in Markdown."""
    headings, *rows = table
    return "".join(f"| {' | '.join(line)} |\n" for line in [headings, ["---"] * len(headings), *rows])


def _caption(point: FailurePoint) -> str:
    """What is said of a point's class, and before of those that it derives from."""
    captions = WORDS["captions"]
    kinds = [kind.__name__ for kind in reversed(type(point).__mro__) if kind.__name__ in captions]
    bins = len(point.bins) if isinstance(point, CalibrationPoint) else 0
    return " ".join(captions[kind] for kind in kinds).replace("{bins}", str(bins))
