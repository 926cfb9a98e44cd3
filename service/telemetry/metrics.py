"""Prometheus metrics of the service."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from decoder.tandem.rule import Opinion

SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Histogram bounds: one pass of a small network takes some 0.5 ms, a hard BP-OSD shot up to seconds."""
ROOM_BYTES = 2**23
"""Of the files in which a process keeps its metrics: some kinds, 1 MiB each."""


def _makers(registry: CollectorRegistry) -> tuple[partial[Counter], partial[Gauge], partial[Histogram]]:
    """What makes the metrics of a registry, by default with the label `model`."""
    options: dict[str, Any] = {"registry": registry, "labelnames": ("model",)}
    # Gauges of several processes add up, without those of processes that have ended.
    gauge = partial(Gauge, multiprocess_mode="livesum", **options)
    return partial(Counter, **options), gauge, partial(Histogram, buckets=SECONDS, **options)


class Metrics:
    """The metrics of one application; a process may hold several applications."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        # Set by `tandem serve --workers`: then values are in files, and the worker that is asked adds them up.
        self._shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if self._shared is not None:
            _check_room(Path(self._shared))
        counter, gauge, histogram = _makers(registry)
        self.requests = counter("tandem_requests", "Decode requests for a known model.")
        self.samples = counter("tandem_sample_requests", "Requests to sample shots for a known model.")
        self._shots = counter("tandem_shots", "Shots decoded.")
        self._hurried = counter("tandem_hurried_shots", "Shots decoded by a cheaper setting, as they took too long.")
        self._batches = counter("tandem_batches", "Batches decoded.")
        self._failures = counter("tandem_failures", "Requests refused or failed.", labelnames=("model", "reason"))
        self._queued = gauge("tandem_queued_shots", "Shots waiting for a model.")
        self.queue_seconds = histogram("tandem_queue_seconds", "Time a request waited.")
        self._compute_seconds = histogram("tandem_compute_seconds", "Time a batch took to decode.")
        self._request_seconds = histogram("tandem_request_seconds", "Time from a decode request to its result.")
        last = "When a decode request was last answered, in seconds since 1970."
        self._last = gauge("tandem_last_request_timestamp_seconds", last, multiprocess_mode="max")
        counted = "Requests being answered, health, metrics and streams not counted."
        self.in_flight = gauge("tandem_requests_in_flight", counted, labelnames=())
        ready = "Workers that have loaded all models and are not shutting down."
        self.ready = gauge("tandem_ready", ready, labelnames=())
        self.opinions = OpinionMetrics(registry, shared=self._shared is not None)
        self.streams = StreamMetrics(registry)
        if self._shared is None:
            ProcessCollector(registry=registry)

    def add_model(self, model: str, *, queued_shots: Callable[[], int]) -> None:
        """Shows a model's metrics from the start, at zero."""
        for metric in (
            self.requests,
            self.samples,
            self._shots,
            self._hurried,
            self._batches,
            self.queue_seconds,
            self._compute_seconds,
            self._request_seconds,
        ):
            metric.labels(model)
        if self._shared is None:
            self._queued.labels(model).set_function(queued_shots)
        self.streams.add_model(model)
        if self._shared is not None:
            _claim_room(Path(self._shared))

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

    def batch(self, model: str, *, shots: int, seconds: float, hurried: int) -> None:
        self._hurried.labels(model).inc(hurried)
        self._batches.labels(model).inc()
        self._shots.labels(model).inc(shots)
        self._compute_seconds.labels(model).observe(seconds)

    def answered(self, model: str, *, seconds: float) -> None:
        """Counts a decode request whose shots are decoded, and for how long it was here."""
        self._request_seconds.labels(model).observe(seconds)
        self._last.labels(model).set_to_current_time()

    def failure(self, model: str, reason: str) -> None:
        """Counts a failure. `model` must be the id of a served model or empty: labels are kept for ever."""
        self._failures.labels(model, reason).inc()

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The metrics as text and its media type, in the format that the Accept header asks for."""
        encode, media_type = choose_encoder(accept)
        return encode(self._all()), media_type

    def totals(self, model: str) -> Mapping[str, float]:
        """What is counted for a model, by the names of the exposition; what differs by other labels is added up."""
        totals: defaultdict[str, float] = defaultdict(float)
        for metric in self._all().collect():
            for sample in metric.samples:
                if sample.labels.get("model") == model and "le" not in sample.labels:
                    totals[sample.name] += sample.value
        return totals

    def _all(self) -> CollectorRegistry:
        """The metrics of all processes."""
        if self._shared is None:
            return self._registry
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=self._shared)  # type: ignore[no-untyped-call]
        return registry


def _check_room(directory: Path) -> None:
    """Checks that the files of a process's metrics fit on the disk: a write to one that does not ends the process.

    Raises:
        OSError: they do not.
    """
    try:
        with TemporaryFile(dir=directory) as file:
            os.posix_fallocate(file.fileno(), 0, ROOM_BYTES)
    except OSError as error:
        hint = f"free {ROOM_BYTES >> 20} MiB there, or let TMPDIR name another directory"
        raise OSError(f"metrics cannot be kept in {directory}: {error.strerror}; {hint}") from error


def _claim_room(directory: Path) -> None:
    """Has the disk keep room for all of the files of this process, which prometheus_client makes with holes."""
    for path in directory.glob(f"*_{os.getpid()}.db"):
        with path.open("r+b") as file, suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


class OpinionMetrics:
    """Who answered the shots of pairs, and how long the second decoder took.

    Args:
        registry: where the metrics are registered.
        shared: whether the metrics of several processes are added up; then waiting shots are not shown.
    """

    def __init__(self, registry: CollectorRegistry, *, shared: bool) -> None:
        self._shared = shared
        counter, gauge, histogram = _makers(registry)
        answered = "Shots of pairs, by who answered them."
        self._opinions = counter("tandem_opinions", answered, labelnames=("model", "opinion"))
        waited = "Time from a shot's being passed on to its second opinion."
        self._seconds = histogram("tandem_second_opinion_seconds", waited)
        self._waiting = gauge("tandem_waiting_opinions", "Shots waiting for a second opinion.")

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
        counter, gauge, histogram = _makers(registry)
        self.connections = gauge("tandem_stream_connections", "WebSocket connections.", labelnames=())
        self.open = gauge("tandem_open_streams", "Streams that have neither been answered nor ended otherwise.")
        self._answered = counter("tandem_streams_answered", "Streams that got their answer.")
        sent = "Messages of streams, received (in) and sent (out)."
        self.messages = counter("tandem_stream_messages", sent, labelnames=("model", "direction"))
        waited = "Time from a stream's last layer to its answer."
        self._seconds = histogram("tandem_stream_answer_seconds", waited)

    def add_model(self, model: str) -> None:
        """Shows a model's metrics from the start, at zero."""
        for metric in (self.open, self._answered, self._seconds):
            metric.labels(model)
        for direction in ("in", "out"):
            self.messages.labels(model, direction)

    def answered(self, model: str, *, seconds: float) -> None:
        self._answered.labels(model).inc()
        self._seconds.labels(model).observe(seconds)
