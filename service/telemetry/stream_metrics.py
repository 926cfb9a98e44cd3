"""Prometheus metrics of streams. Failures are counted with those of other requests."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class StreamMetrics:
    """Those of all models, in the registry of the application's other metrics."""

    def __init__(self, registry: CollectorRegistry, *, buckets: tuple[float, ...]) -> None:
        model = ("model",)
        self.connections = Gauge(
            "tandem_stream_connections", "WebSocket connections.", registry=registry, multiprocess_mode="livesum"
        )
        self._open = Gauge(
            "tandem_open_streams",
            "Streams that have neither been answered nor ended otherwise.",
            model,
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._answered = Counter("tandem_streams_answered", "Streams that got their answer.", model, registry=registry)
        self._messages = Counter(
            "tandem_stream_messages",
            "Messages of streams, received (in) and sent (out).",
            ("model", "direction"),
            registry=registry,
        )
        self._seconds = Histogram(
            "tandem_stream_answer_seconds",
            "Time from a stream's last layer to its answer.",
            model,
            buckets=buckets,
            registry=registry,
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
