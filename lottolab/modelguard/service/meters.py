"""Count what a service does, for Prometheus."""

import prometheus_client as prometheus

from lottolab.modelguard.queries import Service


class Meters:
    """What Prometheus may ask for."""

    def __init__(self, service: Service) -> None:
        registry = self.registry = prometheus.CollectorRegistry()
        own = {"namespace": "lottolab", "registry": registry}
        about = "requests by status", "seconds from the head of a request to its answer"
        self.requests = prometheus.Counter("requests", about[0], ["status"], **own)
        self.seconds = prometheus.Histogram("request_seconds", about[1], **own)
        sizes = [2**k for k in range(9)]
        about = "images answered together", "images admitted and not yet answered"
        self.batches = prometheus.Histogram(
            "batch_images", about[0], buckets=sizes, **own
        )
        self.waiting = prometheus.Gauge("waiting_images", about[1], **own)
        images = prometheus.Gauge("answered_images", "images answered so far", **own)
        images.set_function(lambda: service.asked)
        if hasattr(service.defence, "count"):
            held = prometheus.Gauge("centroids", "predictions kept as answers", **own)
            held.set_function(lambda: service.defence.count)
