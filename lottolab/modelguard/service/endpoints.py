"""Put a classifier and its defence behind HTTP: `POST /predict`, bytes in, bytes out.

A request's body is images, uint8 C×H×W one after the other; the answer's, a row of
float32 (little endian) an image. Nothing is parsed, so nothing is rounded: answers are
those of the defence, bit by bit. `GET /model` says the shapes, `/health` whether it
answers, `/metrics` how much (Prometheus), `/openapi.json` all of this for programs.
"""

import asyncio
import logging
import socket
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import prometheus_client as prometheus
import torch
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from torch import Tensor

from lottolab.checks import require, whole
from lottolab.modelguard.queries import Service
from lottolab.modelguard.service.meters import Meters
from lottolab.modelguard.service.state import State
from lottolab.modelguard.service.worker import Busy, NoPrediction, Worker

BYTES = "application/octet-stream"
RETRY = {"Retry-After": "1"}  # seconds


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


class Health(BaseModel):
    """Whether requests are answered."""

    status: str


class Model(BaseModel):
    """What to ask, and what comes back."""

    channels: int
    height: int
    width: int
    classes: int
    most_images: int


def app(
    service: Service,
    shape: tuple[int, int, int],
    classes: int,
    *,
    state: State | None = None,
    most: int = 64,
    limit: int = 512,
    patience: float = 10.0,
) -> FastAPI:
    """Return the application; its thread starts and ends with the server.

    Args:
        service: the network with its defence, which from now on belongs to the thread.
        shape: of an image, C×H×W. classes: of an answer.
        state: where centroids and admissions go.
        most: images a request. limit: images that may wait; more is answered by 503.
        patience: seconds that a request may take to come.

    Raises:
        ValueError: a number is out of range.
    """
    whole("most", most, 1)
    whole("limit", limit, most)
    require(patience > 0, "patience must be > 0", patience)
    meters = Meters(service)
    size = int(np.prod(shape))

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        api.state.worker = Worker(
            service, state, limit=limit, seen=meters.batches.observe
        )
        meters.waiting.set_function(lambda: api.state.worker.waiting)
        yield
        api.state.worker.stop()

    api = FastAPI(
        title="A defended classifier",
        version="1",
        description=__doc__,
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
    )

    @api.post("/predict", **_documented(size, most))
    async def predict(request: Request) -> Response:
        """Answer images by a row of probabilities each, in their order."""
        start, code = time.perf_counter(), 500
        try:
            images = await _images(request, shape, most, patience)
            answers = await _answers(api.state.worker, images)
            code = 200
        except HTTPException as problem:
            code = problem.status_code
            raise
        finally:
            meters.requests.labels(code).inc()
            meters.seconds.observe(time.perf_counter() - start)
        content = answers.numpy().astype("<f4").tobytes()
        return Response(content, media_type=BYTES)

    @api.get("/model")
    async def model() -> Model:
        """Say what an image and an answer are."""
        channels, height, width = shape
        sizes = {"channels": channels, "height": height, "width": width}
        return Model(**sizes, classes=classes, most_images=most)

    @api.get("/health", responses={503: {"model": Health}})
    async def health(response: Response) -> Health:
        """Say whether requests are answered."""
        alive = api.state.worker.alive
        response.status_code = 200 if alive else 503
        return Health(status="ok" if alive else "the worker has ended")

    text = {"text/plain": {"schema": {"type": "string"}}}

    @api.get("/metrics", response_class=Response, responses={200: {"content": text}})
    async def metrics() -> Response:
        """Count requests, images and seconds, in Prometheus' text format."""
        content = prometheus.generate_latest(meters.registry)
        return Response(content, media_type=prometheus.CONTENT_TYPE_PLAIN_0_0_4)

    api.openapi()  # kept: HEAD is what GET is, and the page has each once
    for route in api.routes:
        if "GET" in route.methods:
            route.methods.add("HEAD")
    return api


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; port 0 is a free one.

    Raises:
        RuntimeError: the address is taken or not this machine's.
    """
    require(0 <= port < 65536, "port must be in [0, 65535]", port)
    # Named TCP, or asyncio would not turn Nagle's delay of 40 ms off.
    kind = {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_TCP}
    try:
        *made, _, address = socket.getaddrinfo(host, port, **kind)[0]
        bound = socket.socket(*made)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()  # who is told the address may connect, and wait
        return bound
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        said = f"{host} port {port} cannot be used ({why})"
        raise RuntimeError(f"{said}; choose another --port or --host") from error


def address(bound: socket.socket) -> str:
    """Return the URL of a socket that listens."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(api: FastAPI, bound: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; what has been admitted is answered first."""
    config = uvicorn.Config(api, log_level="warning", timeout_graceful_shutdown=10)
    uvicorn.Server(config).run(sockets=[bound])


async def _images(
    request: Request, shape: tuple[int, ...], most: int, patience: float
) -> Tensor:
    """Read the body, as far as it may go, as uint8 N×C×H×W."""
    size = int(np.prod(shape))
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    _refuse(given != BYTES, 415, f"the body must be {BYTES}")
    packed = request.headers.get("content-encoding", "identity").strip().lower()
    _refuse(packed != "identity", 415, f"the body must not be encoded ({packed})")
    told = int(request.headers.get("content-length", 0))
    large = f"the body must hold at most {most} images of {size} bytes"
    _refuse(told > most * size, 413, large)
    body = bytearray()
    try:
        async with asyncio.timeout(patience):
            async for part in request.stream():
                body += part
                _refuse(len(body) > most * size, 413, large)
    except TimeoutError:
        _refuse(True, 408, f"the body must come within {patience:g} s")
    except ClientDisconnect:
        _refuse(True, 400, "the body ended early")
    what = f"the body must be images of {size} bytes each ({'×'.join(map(str, shape))})"
    _refuse(not body or len(body) % size, 400, f"{what}, got {len(body)} bytes")
    return torch.frombuffer(body, dtype=torch.uint8).view(-1, *shape)


async def _answers(worker: Worker, images: Tensor) -> Tensor:
    try:
        return await asyncio.wrap_future(worker.submit(images))
    except Busy:
        detail = "too many images are waiting"
    except sqlite3.Error:
        detail = "the answer cannot be made durable"
    except NoPrediction as error:
        raise HTTPException(500, str(error)) from error
    except Exception as error:
        logging.getLogger("uvicorn.error").exception("no answer")
        raise HTTPException(500, "the service failed; its log says why") from error
    raise HTTPException(503, detail, RETRY)


def _refuse(refused: bool, code: int, detail: str) -> None:
    if refused:
        raise HTTPException(code, detail)


def _documented(size: int, most: int) -> dict:
    """Return what the OpenAPI page says of a request's body and its answers."""
    body = {"type": "string", "format": "binary"}
    body |= {"minLength": size, "maxLength": size * most}
    answer = {"schema": {"type": "string", "format": "binary"}}
    wait = {"description": "seconds to wait", "schema": {"type": "string"}}
    refused = {code: {"model": Problem} for code in (400, 408, 413, 415, 500)}
    busy = {"model": Problem, "headers": {"Retry-After": wait}}
    request = {"required": True, "content": {BYTES: {"schema": body}}}
    return {
        "response_class": Response,
        "responses": {200: {"content": {BYTES: answer}}, **refused, 503: busy},
        "openapi_extra": {"requestBody": request},
    }
