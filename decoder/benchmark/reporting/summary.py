"""What several results have in common, and where a reader has to be careful when comparing them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from decoder.benchmark.reporting.result_tree import ResultDirectory, Table
from decoder.catalog import DECODERS
from simulation.codes import CODES

Value = TypeVar("Value", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """An overview of a report's results."""

    facts: tuple[tuple[str, str], ...]
    """Label and text: codes, experiments, shots and so on."""
    decoders: Table
    origins: Table
    """From which commits and machines the results come."""
    warnings: tuple[str, ...]
    """What forbids to repeat the results from their commits, or to compare them with each other."""


def summarize(results: Sequence[ResultDirectory]) -> Summary:
    """Sums up at least one result."""
    points = [point for result in results for point in result.points]
    kinds = Counter(result.kind for result in results)
    times = sorted(result.provenance["time"] for result in results)
    facts = (
        ("results", f"{len(results)} ({', '.join(f'{kind} {count}' for kind, count in kinds.items())})"),
        ("codes", ", ".join(_code(code) for code in _distinct(point["code"] for point in points))),
        ("rounds", ", ".join(str(rounds) for rounds in sorted({point["rounds"] for point in points} - {None}))),
        ("physical error rates", error_rates(points)),
        (
            "shots decoded",
            f"{sum(point['shots'] for point in points):,}, each counted once for every decoder and batch size that "
            "decoded it",
        ),
        ("seeds of the shots", seeds(points)),
        ("measured", times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"),
    )
    return Summary(
        facts=facts, decoders=_decoders(points), origins=_origins(results), warnings=tuple(_warnings(results))
    )


def error_rates(points: Sequence[Mapping[str, Any]]) -> str:
    """The physical error rates of points in percent; where the noise has free rates there is none."""
    rates = sorted({point["p"] for point in points if not _has_free_rates(point)} - {None})
    percents = [", ".join(f"{100 * rate:.4g}" for rate in rates) + " %"] if rates else []
    return ", ".join(percents + _distinct(point["noise"] for point in points if _has_free_rates(point)))


def seeds(points: Sequence[Mapping[str, Any]]) -> str:
    """The seeds of points, ascending."""
    return ", ".join(str(seed) for seed in sorted({point["seed"] for point in points}))


def commit_text(provenance: Mapping[str, Any]) -> str:
    """The commit's hash, or that there is none."""
    return "not in git" if provenance["git"] is None else provenance["git"]["commit"]


def tree_text(provenance: Mapping[str, Any]) -> str:
    """Whether the source files were those of the commit."""
    if provenance["git"] is None:
        return "unknown"
    return "clean" if provenance["git"]["clean"] else "with changes"


def machine_text(provenance: Mapping[str, Any]) -> str:
    """The processors that the results were computed on."""
    machine = provenance["machine"]
    return f"{machine['cpu']}, {machine['cores']} cores, GPU {machine['gpu'] or 'none'}"


def _has_free_rates(point: Mapping[str, Any]) -> bool:
    return "=" in point["noise"]


def _code(name: str) -> str:
    code = CODES.get(name)
    return name if code is None else f"{name} [[{code.n}, {code.k}, {code.distance_text}]]"


def _decoders(points: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    shots: Counter[tuple[str, str]] = Counter()
    for point in points:
        shots[point["decoder"], point["detectors"]] += point["shots"]
    for (name, detectors), decoded in shots.items():
        about = DECODERS[name].summary if name in DECODERS else ""
        rows.append((name, detectors, about, f"{decoded:,}"))
    return Table(title="Decoders", headings=("decoder", "detectors", "what it is", "shots decoded"), rows=tuple(rows))


def _origins(results: Sequence[ResultDirectory]) -> Table:
    everything = [result.provenance for result in results]
    origins = Counter((commit_text(one), tree_text(one), machine_text(one)) for one in everything)
    rows = tuple((*origin, str(count)) for origin, count in origins.items())
    return Table(title="Origin of the results", headings=("commit", "tree", "machine", "results"), rows=rows)


def _warnings(results: Sequence[ResultDirectory]) -> list[str]:
    everything = [result.provenance for result in results]
    changed = sum(tree_text(provenance) == "with changes" for provenance in everything)
    unknown = sum(provenance["git"] is None for provenance in everything)
    found = []
    if changed:
        found.append(
            f"{changed} of {len(results)} results were made from a tree with uncommitted changes: their commits alone "
            "may not repeat them."
        )
    if unknown:
        found.append(f"{unknown} of {len(results)} results do not say from which commit they were made.")
    for name, consequence, key in _MUST_AGREE:
        different = len({key(provenance) for provenance in everything})
        if different > 1:
            found.append(f"The results come from {different} different {name}: {consequence}.")
    if packages := _packages_that_differ(everything):
        found.append(f"The results were made with different versions of {', '.join(packages)}.")
    return found


_MUST_AGREE: tuple[tuple[str, str, Callable[[Mapping[str, Any]], Hashable]], ...] = (
    ("commits", "the decoders may have changed in between", commit_text),
    ("machines", "compare times only within one of them", machine_text),
    ("numbers of threads", "compare times only at the same number", lambda origin: origin["machine"]["threads"]),
)
"""What of the provenance should be the same for all results, and what follows where it is not."""


def _packages_that_differ(everything: Sequence[Mapping[str, Any]]) -> list[str]:
    """By the versions that are recorded; older results lack some."""
    found: dict[str, set[str]] = {}
    for provenance in everything:
        for name, version in provenance["versions"].items():
            if version is not None:
                found.setdefault(name, set()).add(str(version))
    return [name for name, versions in found.items() if len(versions) > 1]


def _distinct(values: Iterable[Value]) -> list[Value]:
    """Each value once, in the order in which they first come."""
    return list(dict.fromkeys(values))
