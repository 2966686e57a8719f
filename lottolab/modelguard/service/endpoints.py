"""Put a classifier and its defence behind HTTP: `POST /predict`, bytes in, bytes out.

A request's body is images, uint8 C×H×W one after the other; the answer's, a row of
float32 (little endian) an image. Nothing is parsed, so nothing is rounded: answers are
those of the defence, bit by bit. `GET /model` says the shapes, `/openapi.json` all of
this for programs.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import numpy as np
import torch
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from torch import Tensor

from lottolab.checks import require, whole
from lottolab.modelguard.queries import Service
from lottolab.modelguard.service.keys import Client, Keys
from lottolab.modelguard.service.line import Busy
from lottolab.modelguard.service.meters import Meters, answer_heads
from lottolab.modelguard.service.state import State
from lottolab.modelguard.service.tenants import Tenants
from lottolab.modelguard.service.worker import NoPrediction, Spent, Worker

BYTES = "application/octet-stream"
RETRY = {"Retry-After": "1"}  # seconds
WHO = {"WWW-Authenticate": "Bearer"}


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


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
    keys: Keys | None = None,
    tenants: Tenants | None = None,
    most: int = 64,
    limit: int = 512,
    patience: float = 10.0,
) -> FastAPI:
    """Return the application; its thread starts and ends with the server.

    Args:
        service: the network with its defence, which from now on belongs to the thread.
        shape: of an image, C×H×W. classes: of an answer.
        state: where centroids and admissions go. keys: who may ask; all, if None.
        tenants: whose centroids answer; one state for all, if None.
        most: images a request. limit: images that may wait; more is answered by 503.
        patience: seconds that a request's body may take to come.

    Raises:
        ValueError: a number is out of range.
    """
    whole("most", most, 1)
    whole("limit", limit, most)
    require(patience > 0, "patience must be > 0", patience)
    tenants = tenants or Tenants(service.defence)
    meters = Meters(service, tenants)
    size, quotas = int(np.prod(shape)), keys.quotas if keys else {}

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        own = {"tenants": tenants, "quotas": quotas, "seen": meters.batches.observe}
        api.state.worker = Worker(service, state, limit=limit, **own)
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
    api.state.meters = meters
    # Without keys the page shall not speak of them.
    bearer = HTTPBearer(auto_error=False) if keys else _nothing
    Given = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]

    @api.post("/predict", **_documented(size, most, bool(keys)))
    async def predict(request: Request, given: Given) -> Response:
        """Answer images by a row of probabilities each, in their order."""
        start, code = time.perf_counter(), 500
        try:
            client = _client(request, given, keys)
            images = await _images(request, shape, most, patience)
            answers = await _answers(api.state.worker, images, client)
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

    answer_heads(api)
    return api


def _client(
    request: Request, given: HTTPAuthorizationCredentials | None, keys: Keys | None
) -> Client:
    """Return who asks, before a byte of the body is read."""
    name = keys.name(given.credentials) if keys and given else ""
    if name is None or (keys and not name):
        raise HTTPException(401, "the request must bear a key of this service", WHO)
    return Client(name, request.client.host if request.client else "")


async def _nothing() -> None:
    return None


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


async def _answers(worker: Worker, images: Tensor, client: Client) -> Tensor:
    try:
        return await asyncio.wrap_future(worker.submit(images, client))
    except Busy:
        detail = "too many images are waiting"
    except Spent as error:
        raise HTTPException(403, "the key's quota does not hold them") from error
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


def _documented(size: int, most: int, keyed: bool) -> dict:
    """Return what the OpenAPI page says of a request's body and its answers."""
    body = {"type": "string", "format": "binary"}
    body |= {"minLength": size, "maxLength": size * most}
    answer = {"schema": {"type": "string", "format": "binary"}}
    wait = {"description": "seconds to wait", "schema": {"type": "string"}}
    codes = (400, 408, 413, 415, 500, *((401, 403) if keyed else ()))
    refused = {code: {"model": Problem} for code in codes}
    busy = {"model": Problem, "headers": {"Retry-After": wait}}
    request = {"required": True, "content": {BYTES: {"schema": body}}}
    return {
        "response_class": Response,
        "responses": {200: {"content": {BYTES: answer}}, **refused, 503: busy},
        "openapi_extra": {"requestBody": request},
    }
