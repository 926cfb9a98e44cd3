"""Prometheus metrics of second opinions."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from decoder.tandem.rule import Opinion

KINDS = tuple(opinion.name.lower() for opinion in Opinion)


class OpinionMetrics:
    """Who answered the shots of pairs, and how long the second decoder took.

    Args:
        registry: where they are.
        buckets: of the histogram, seconds.
        shared: whether several processes add theirs up; then what waits is not shown.
    """

    def __init__(self, registry: CollectorRegistry, *, buckets: tuple[float, ...], shared: bool) -> None:
        self._shared = shared
        self._opinions = Counter(
            "tandem_opinions", "Shots of pairs, by who answered them.", ("model", "opinion"), registry=registry
        )
        self._seconds = Histogram(
            "tandem_second_opinion_seconds",
            "Time from a shot's being passed on to its second opinion.",
            ("model",),
            buckets=buckets,
            registry=registry,
        )
        self._waiting = Gauge(
            "tandem_waiting_opinions",
            "Shots waiting for a second opinion.",
            ("model",),
            registry=registry,
            multiprocess_mode="livesum",
        )

    def add_model(self, model: str, *, waiting: Callable[[], int]) -> None:
        """Shows a pair's metrics from the start, at zero."""
        for kind in KINDS:
            self._opinions.labels(model, kind)
        self._seconds.labels(model)
        if not self._shared:
            self._waiting.labels(model).set_function(waiting)

    def remove_model(self, model: str) -> None:
        """Shows the shots waiting for a pair no longer."""
        if not self._shared:
            self._waiting.remove(model)

    def told(self, model: str, kind: str, *, shots: int, seconds: float | None) -> None:
        """Counts answered shots, and how long the second decoder took if it answered."""
        self._opinions.labels(model, kind).inc(shots)
        if seconds is not None:
            self._seconds.labels(model).observe(seconds)
