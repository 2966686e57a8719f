"""Count what a service does, for its operator: an application of its own.

On the clients' port these numbers would tell a thief which of his queries opened a
centroid, which is to say which answers are exact.
"""

import prometheus_client as prometheus
from fastapi import FastAPI, Response
from pydantic import BaseModel

from lottolab.modelguard.queries import Service
from lottolab.modelguard.service.tenants import Tenants


class Health(BaseModel):
    """Whether requests are answered."""

    status: str


class Meters:
    """What Prometheus may ask for."""

    def __init__(self, service: Service, tenants: Tenants) -> None:
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
        if tenants.count is not None or tenants.apart:
            held = prometheus.Gauge("centroids", "predictions kept as answers", **own)
            held.set_function(lambda: tenants.count or 0)


def app(clients: FastAPI) -> FastAPI:
    """Return the operator's application beside that of `endpoints.app`."""
    api = FastAPI(title="The operator's side", docs_url=None, redoc_url=None)

    @api.get("/health", responses={503: {"model": Health}})
    async def health(response: Response) -> Health:
        """Say whether requests are answered."""
        worker = getattr(clients.state, "worker", None)
        alive = worker is not None and worker.alive
        response.status_code = 200 if alive else 503
        return Health(status="ok" if alive else "no worker answers")

    text = {"text/plain": {"schema": {"type": "string"}}}

    @api.get("/metrics", response_class=Response, responses={200: {"content": text}})
    async def metrics() -> Response:
        """Count requests, images and seconds, in Prometheus' text format."""
        content = prometheus.generate_latest(clients.state.meters.registry)
        return Response(content, media_type=prometheus.CONTENT_TYPE_PLAIN_0_0_4)

    answer_heads(api)
    return api


def answer_heads(api: FastAPI) -> None:
    """Have HEAD be what GET is, while the page of an application has each once."""
    api.openapi()  # kept
    for route in api.routes:
        if "GET" in route.methods:
            route.methods.add("HEAD")
