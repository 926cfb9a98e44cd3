"""Prometheus metrics of the service."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from service.telemetry.opinion_metrics import OpinionMetrics
from service.telemetry.stream_metrics import StreamMetrics

SECONDS = (
    1e-4,
    2.5e-4,
    5e-4,
    1e-3,
    2.5e-3,
    5e-3,
    1e-2,
    2.5e-2,
    5e-2,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)
"""Histogram bounds: one pass of a small network takes some 0.5 ms, a hard BP-OSD shot up to seconds."""


class Metrics:
    """One set of metrics an application, so that several can live in one process."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        # Set by `tandem serve --workers`: then values are in files, which whoever is asked adds up.
        self._shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        model = ("model",)
        self._requests = Counter("tandem_requests", "Decode requests for a known model.", model, registry=registry)
        self._samples = Counter(
            "tandem_sample_requests", "Requests to sample shots for a known model.", model, registry=registry
        )
        self._shots = Counter("tandem_shots", "Shots decoded.", model, registry=registry)
        self._batches = Counter("tandem_batches", "Batches decoded.", model, registry=registry)
        self._failures = Counter(
            "tandem_failures", "Requests refused or failed.", ("model", "reason"), registry=registry
        )
        self._queued = Gauge(
            "tandem_queued_shots", "Shots waiting for a model.", model, registry=registry, multiprocess_mode="livesum"
        )
        self._queue = Histogram(
            "tandem_queue_seconds", "Time a request waited.", model, buckets=SECONDS, registry=registry
        )
        self._compute = Histogram(
            "tandem_compute_seconds",
            "Time a batch took to decode.",
            model,
            buckets=SECONDS,
            registry=registry,
        )
        self._in_flight = Gauge(
            "tandem_requests_in_flight",
            "Requests being answered, health, metrics and streams not counted.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._ready = Gauge(
            "tandem_ready",
            "Workers that have loaded all models and are not shutting down.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.opinions = OpinionMetrics(registry, buckets=SECONDS, shared=self._shared is not None)
        self.streams = StreamMetrics(registry, buckets=SECONDS)
        if self._shared is None:
            ProcessCollector(registry=registry)

    def add_model(self, model: str, *, queued_shots: Callable[[], int]) -> None:
        """Shows a model's metrics from the start, at zero."""
        for metric in (self._requests, self._samples, self._shots, self._batches, self._queue, self._compute):
            metric.labels(model)
        if self._shared is None:
            self._queued.labels(model).set_function(queued_shots)
        self.streams.add_model(model)

    def remove_model(self, model: str) -> None:
        """Shows the shots waiting for a model no longer. What was counted stays."""
        if self._shared is None:
            self._queued.remove(model)

    @contextmanager
    def waiting(self, model: str, *, shots: int) -> Iterator[None]:
        """Counts shots as long as a request waits for them, where the queues of several processes add up."""
        if self._shared is None:
            yield
            return
        gauge = self._queued.labels(model)
        gauge.inc(shots)
        try:
            yield
        finally:
            gauge.dec(shots)

    def request(self, model: str) -> None:
        self._requests.labels(model).inc()

    def sample_request(self, model: str) -> None:
        self._samples.labels(model).inc()

    def batch(self, model: str, *, shots: int, seconds: float) -> None:
        self._batches.labels(model).inc()
        self._shots.labels(model).inc(shots)
        self._compute.labels(model).observe(seconds)

    def queued(self, model: str, *, seconds: float) -> None:
        self._queue.labels(model).observe(seconds)

    def in_flight(self, *, counted: bool = True) -> AbstractContextManager[object]:
        """Counts a request while it is answered."""
        return self._in_flight.track_inprogress() if counted else nullcontext()

    def ready(self, ready: bool) -> None:
        """Says whether this worker is ready for requests."""
        self._ready.set(ready)

    def failure(self, model: str, reason: str) -> None:
        """Counts a failure. `model` must be the id of a served model or empty: labels are kept for ever."""
        self._failures.labels(model, reason).inc()

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The metrics as text and its media type, in the format that the Accept header asks for."""
        encode, media_type = choose_encoder(accept)
        registry = self._registry
        if self._shared is not None:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, path=self._shared)  # type: ignore[no-untyped-call]
        return encode(registry), media_type
