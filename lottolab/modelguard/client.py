"""Ask a service over HTTP, through the interface of one in this process."""

import time

import httpx
import numpy as np
import torch
from torch import Tensor

from lottolab.checks import require
from lottolab.modelguard.queries import check_images


class Remote:
    """Answer queries as `queries.Service` does, by asking the service at an address.

    asked: images answered so far. shape, classes: of an image and of an answer.
    A service that is busy is asked again, for up to `patience` seconds a request.

    Raises:
        RuntimeError: nobody answers there, or not as `modelguard.service` does.
    """

    def __init__(self, url: str, *, patience: float = 60.0) -> None:
        self.url, self.patience, self.asked = url, patience, 0
        host = httpx.URL(url).host
        own = host in ("localhost", "::1") or host.startswith("127.")
        # A proxy in the environment cannot reach this machine's own addresses.
        self._http = httpx.Client(base_url=url, timeout=patience, trust_env=not own)
        told = self._send("GET", "/model").json()
        self.shape = tuple(told[k] for k in ("channels", "height", "width"))
        self.classes, self.most = told["classes"], told["most_images"]

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
        answer = self._send("POST", "/predict", content=content, headers=kind)
        rows = np.frombuffer(answer.content, "<f4").astype(np.float32)
        self.asked += len(images)
        return torch.from_numpy(rows).view(len(images), self.classes)

    def _send(self, method: str, path: str, **request) -> httpx.Response:
        end = time.monotonic() + self.patience
        while True:
            try:
                answer = self._http.request(method, path, **request)
            except httpx.HTTPError as error:
                raise RuntimeError(f"{self.url} does not answer: {error}") from error
            wait = float(answer.headers.get("Retry-After", 1))
            if answer.status_code != 503 or time.monotonic() + wait > end:
                break
            time.sleep(wait)
        if answer.status_code != 200:
            said = answer.text.splitlines()[:1]
            raise RuntimeError(f"{self.url}{path}: {answer.status_code} {said}")
        return answer
