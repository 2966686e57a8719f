"""Ask a service over HTTP, through the interface of one in this process."""

import email.utils
import time
from datetime import UTC, datetime

import httpx
import numpy as np
import torch
from torch import Tensor

from lottolab.checks import require, whole
from lottolab.modelguard.queries import check_images

SIZES = ("channels", "height", "width", "classes", "most_images")
BUSY = (429, 503)  # too many requests, service unavailable
LEAST = 0.1  # seconds before the same is asked again


class Remote:
    """Answer queries as `queries.Service` does, by asking the service at an address.

    asked: images answered so far. shape, classes: of an image and of an answer.
    A service that is busy is asked again, for up to `patience` seconds a request. key:
    as `lottolab modelguard key` printed it, where the service wants one.

    Raises:
        ValueError: `url` is none of HTTP.
        RuntimeError: nobody answers there, or not as `modelguard.service` does.
    """

    def __init__(
        self, url: str, *, key: str | None = None, patience: float = 60.0
    ) -> None:
        self.url, self.patience, self.asked = url, patience, 0
        try:
            host = httpx.URL(url).host
            own = host in ("localhost", "::1") or host.startswith("127.")
            # A proxy in the environment cannot reach this machine's own addresses.
            self._http = httpx.Client(
                base_url=url,
                timeout=patience,
                trust_env=not own,
                headers={"Authorization": f"Bearer {key}"} if key else None,
            )
        except (httpx.InvalidURL, TypeError) as error:
            raise ValueError(f"url must be http://host:port, got {url!r}") from error
        told = self._send("GET", "/model")
        try:
            sizes = [told.json()[name] for name in SIZES]
            for name, size in zip(SIZES, sizes, strict=True):
                whole(name, size, 1)
        except (ValueError, KeyError, TypeError) as error:
            raise RuntimeError(f"{url} is no prediction service: {error}") from error
        self.shape, (self.classes, self.most) = tuple(sizes[:3]), sizes[3:]

    def __call__(self, images: Tensor) -> Tensor:
        """Return an answer an image, uint8 N×C×H×W to float32 N×classes."""
        check_images(images)
        right, given = tuple(images.shape[1:]) == self.shape, list(images.shape[1:])
        require(right, f"{self.url} takes images of {list(self.shape)}", given)
        return torch.cat([self._ask(part) for part in images.split(self.most)])

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def _ask(self, images: Tensor) -> Tensor:
        content = images.contiguous().numpy().tobytes()
        kind = {"Content-Type": "application/octet-stream"}
        found = self._send("POST", "/predict", content=content, headers=kind).content
        if len(found) != 4 * len(images) * self.classes:
            said = f"{len(images)} images by {len(found)} bytes"
            raise RuntimeError(f"{self.url} answers {said}, not as its /model says")
        rows = np.frombuffer(found, "<f4").astype(np.float32)
        self.asked += len(images)
        return torch.from_numpy(rows).view(len(images), self.classes)

    def _send(self, method: str, path: str, **request) -> httpx.Response:
        end = time.monotonic() + self.patience
        while True:
            try:
                answer = self._http.request(method, path, **request)
            except (httpx.HTTPError, UnicodeError) as error:
                raise RuntimeError(f"{self.url} does not answer: {error}") from error
            if answer.status_code == 200:
                return answer
            wait = _wait(answer.headers.get("Retry-After", ""))
            if answer.status_code not in BUSY or time.monotonic() + wait > end:
                said = answer.text.splitlines()[:1]
                raise RuntimeError(f"{self.url}{path}: {answer.status_code} {said}")
            time.sleep(wait)


def _wait(told: str) -> float:
    """Return the seconds to wait by a `Retry-After`, a number or a date; 1 by none."""
    if told.isascii() and told.isdecimal():
        return max(float(told), LEAST)
    try:
        until = email.utils.parsedate_to_datetime(told)
    except ValueError:
        return 1.0
    until = until.replace(tzinfo=until.tzinfo or UTC)
    return max((until - datetime.now(UTC)).total_seconds(), LEAST)
