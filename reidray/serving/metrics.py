"""Figures of the service, in the text format of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import Scope

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
ROUTES = ("/", "/embed", "/search", "/image", "/about", "/health", "/metrics")


class Metrics:
    """Of one service, whatever else runs in the process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "reidray_serve_requests", "Requests, by route and status", ("route", "status"), registry=self._registry
        )
        self._errors = Counter(
            "reidray_serve_errors", "Requests with a status from 400", ("route",), registry=self._registry
        )
        self._seconds = Histogram(
            "reidray_serve_seconds",
            "Seconds from a request to the end of its answer",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._images = Counter("reidray_serve_images", "Images that were embedded", registry=self._registry)
        self._gallery = Gauge("reidray_serve_gallery_images", "Images of the gallery", registry=self._registry)

    def answered(self, scope: Scope, status: int, seconds: float) -> None:
        """Counts a request."""
        route = "/" + str(scope["path"]).split("/")[1]
        route = route if route in ROUTES else "other"
        self._requests.labels(route, str(status)).inc()
        if status >= 400:
            self._errors.labels(route).inc()
        self._seconds.labels(route).observe(seconds)

    def embedded(self, images: int) -> None:
        """Counts images."""
        self._images.inc(images)

    def text(self, gallery_images: int) -> bytes:
        """All of them."""
        self._gallery.set(gallery_images)
        return generate_latest(self._registry)
