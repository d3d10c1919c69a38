"""`Metrics`: what a server tells Prometheus, at /metrics."""

from collections.abc import Callable, Iterator, Mapping

import prometheus_client
from prometheus_client.core import GaugeMetricFamily, Metric

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST


class _Figures:
    """A collector of figures that are asked for when they are collected."""

    def __init__(self, figures: Callable[[], Mapping[str, float]]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        for name, value in self._figures().items():
            yield GaugeMetricFamily(f"deeplab_{name}", name.replace("_", " "), value=value)


class Metrics:
    """Counts requests by what they asked for and their status, and how long they took.

    Args:
      figures: returns what else is measured, by name.
    """

    def __init__(self, figures: Callable[[], Mapping[str, float]]) -> None:
        # One for each server: the library's own would be one for the process, in which tests run several.
        self._registry = prometheus_client.CollectorRegistry()
        self._requests = prometheus_client.Counter(
            "deeplab_requests", "requests", ("what", "status"), registry=self._registry
        )
        self._seconds = prometheus_client.Histogram(
            "deeplab_request_seconds", "seconds to an answer", ("what",), buckets=_SECONDS, registry=self._registry
        )
        self._registry.register(_Figures(figures))

    def count(self, what: str, status: int, seconds: float) -> None:
        """Counts a request: `what` is the name of a handler, of which there are few."""
        self._requests.labels(what, str(status)).inc()
        self._seconds.labels(what).observe(seconds)

    def text(self) -> bytes:
        """Returns all of it in Prometheus's format."""
        return prometheus_client.generate_latest(self._registry)
