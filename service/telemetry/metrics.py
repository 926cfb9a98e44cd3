"""Prometheus metrics of the service."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from decoder.tandem.rule import Opinion

SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Histogram bounds: one pass of a small network takes some 0.5 ms, a hard BP-OSD shot up to seconds."""

# Gauges of several processes add up, without those of processes that have ended.
_Gauge = partial(Gauge, multiprocess_mode="livesum")
_Histogram = partial(Histogram, buckets=SECONDS)
_MODEL = ("model",)


class Metrics:
    """The metrics of one application; a process may hold several applications."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        # Set by `tandem serve --workers`: then values are in files, and the worker that is asked adds them up.
        self._shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        self._requests = Counter("tandem_requests", "Decode requests for a known model.", _MODEL, registry=registry)
        self._samples = Counter(
            "tandem_sample_requests", "Requests to sample shots for a known model.", _MODEL, registry=registry
        )
        self._shots = Counter("tandem_shots", "Shots decoded.", _MODEL, registry=registry)
        self._batches = Counter("tandem_batches", "Batches decoded.", _MODEL, registry=registry)
        self._failures = Counter(
            "tandem_failures", "Requests refused or failed.", ("model", "reason"), registry=registry
        )
        self._queued = _Gauge("tandem_queued_shots", "Shots waiting for a model.", _MODEL, registry=registry)
        self._queue = _Histogram("tandem_queue_seconds", "Time a request waited.", _MODEL, registry=registry)
        self._compute = _Histogram("tandem_compute_seconds", "Time a batch took to decode.", _MODEL, registry=registry)
        self._in_flight = _Gauge(
            "tandem_requests_in_flight",
            "Requests being answered, health, metrics and streams not counted.",
            registry=registry,
        )
        self._ready = _Gauge(
            "tandem_ready", "Workers that have loaded all models and are not shutting down.", registry=registry
        )
        self.opinions = OpinionMetrics(registry, shared=self._shared is not None)
        self.streams = StreamMetrics(registry)
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
        """Counts the shots of a request that waits, if the queues of several processes have to be added up."""
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


class OpinionMetrics:
    """Who answered the shots of pairs, and how long the second decoder took.

    Args:
        registry: where the metrics are registered.
        shared: whether the metrics of several processes are added up; then waiting shots are not shown.
    """

    def __init__(self, registry: CollectorRegistry, *, shared: bool) -> None:
        self._shared = shared
        self._opinions = Counter(
            "tandem_opinions", "Shots of pairs, by who answered them.", ("model", "opinion"), registry=registry
        )
        self._seconds = _Histogram(
            "tandem_second_opinion_seconds",
            "Time from a shot's being passed on to its second opinion.",
            _MODEL,
            registry=registry,
        )
        self._waiting = _Gauge(
            "tandem_waiting_opinions", "Shots waiting for a second opinion.", _MODEL, registry=registry
        )

    def add_model(self, model: str, *, waiting: Callable[[], int]) -> None:
        """Shows a pair's metrics from the start, at zero."""
        for opinion in Opinion:
            self._opinions.labels(model, opinion.name.lower())
        self._seconds.labels(model)
        if not self._shared:
            self._waiting.labels(model).set_function(waiting)

    def remove_model(self, model: str) -> None:
        """Shows the shots waiting for a pair no longer."""
        if not self._shared:
            self._waiting.remove(model)

    def count(self, model: str, opinion: Opinion, *, shots: int = 1, seconds: float | None = None) -> None:
        """Counts answered shots, and how long the second decoder took if it answered."""
        self._opinions.labels(model, opinion.name.lower()).inc(shots)
        if seconds is not None:
            self._seconds.labels(model).observe(seconds)


class StreamMetrics:
    """What streams do; their failures are counted with those of other requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.connections = _Gauge("tandem_stream_connections", "WebSocket connections.", registry=registry)
        self._open = _Gauge(
            "tandem_open_streams",
            "Streams that have neither been answered nor ended otherwise.",
            _MODEL,
            registry=registry,
        )
        self._answered = Counter("tandem_streams_answered", "Streams that got their answer.", _MODEL, registry=registry)
        self._messages = Counter(
            "tandem_stream_messages",
            "Messages of streams, received (in) and sent (out).",
            ("model", "direction"),
            registry=registry,
        )
        self._seconds = _Histogram(
            "tandem_stream_answer_seconds", "Time from a stream's last layer to its answer.", _MODEL, registry=registry
        )

    def add_model(self, model: str) -> None:
        """Shows a model's metrics from the start, at zero."""
        for metric in (self._open, self._answered, self._seconds):
            metric.labels(model)
        for direction in ("in", "out"):
            self._messages.labels(model, direction)

    def opened(self, model: str) -> None:
        self._open.labels(model).inc()

    def ended(self, model: str) -> None:
        self._open.labels(model).dec()

    def answered(self, model: str, *, seconds: float) -> None:
        self._answered.labels(model).inc()
        self._seconds.labels(model).observe(seconds)

    def received(self, model: str) -> None:
        self._messages.labels(model, "in").inc()

    def sent(self, model: str) -> None:
        self._messages.labels(model, "out").inc()
