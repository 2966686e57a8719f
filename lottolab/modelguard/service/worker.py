"""Answer the requests of many clients in one thread, in batches, in their order."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future

import torch
from torch import Tensor

from lottolab.checks import require, whole
from lottolab.modelguard.queries import Service
from lottolab.modelguard.service.state import State
from lottolab.nets import predict

BATCH = 256  # images at most that are answered together


class Busy(Exception):
    """No more images are admitted for now."""


class NoPrediction(Exception):
    """The network's prediction for an image is not finite."""


class Worker:
    """Own a service and its state, and answer what is submitted.

    While a batch is answered, the requests that come in make up the next one: they
    share one call of the defence and one wait for the disk. Each image goes through the
    network alone, because a network's float32 results depend on the size of its batch;
    so nobody's answer depends on who asks beside him.

    limit: images that may wait or be answered at a time. seen: is told the number of
    images of each batch.
    """

    def __init__(
        self,
        service: Service,
        state: State | None = None,
        *,
        limit: int = 512,
        seen: Callable[[int], None] | None = None,
    ) -> None:
        whole("limit", limit, 1)
        self.service, self.state, self.limit = service, state, limit
        self.seen = seen or (lambda count: None)
        self.waiting = 0
        self._lock, self._queue = threading.Lock(), queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, images: Tensor) -> Future:
        """Admit a request; the future gives its answers, float32 N×classes.

        Args:
            images: uint8 N×C×H×W, as the network takes them.

        Raises:
            Busy: too many images are waiting, or the thread has ended.
        """
        require(
            len(images) <= self.limit, f"images must be <= {self.limit}", len(images)
        )
        future = Future()
        future.set_running_or_notify_cancel()  # nobody who hangs up can cancel it
        with self._lock:  # so that the queue is in the order of admission
            if self.waiting + len(images) > self.limit or not self.alive:
                raise Busy
            self.waiting += len(images)
            self._queue.put((images, future))
        return future

    @property
    def alive(self) -> bool:
        """Does the thread still answer?"""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Answer what has been admitted, then end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        torch.set_num_threads(1)  # holds for this thread alone
        while (first := self._queue.get()) is not None:
            batch, count = [first], len(first[0])
            while count < BATCH and not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    self._queue.put(None)
                    break
                batch.append(following)
                count += len(following[0])
            self._answer(batch)

    def _answer(self, batch: list[tuple[Tensor, Future]]) -> None:
        """Answer requests; one without a prediction costs no other its answer."""
        found = [self._predicted(images) for images, _ in batch]
        sound = [i for i, rows in enumerate(found) if isinstance(rows, Tensor)]
        try:
            parts = self._defended([(batch[i][0], found[i]) for i in sound])
        except Exception as error:
            parts = [error] * len(sound)
        for place, part in zip(sound, parts, strict=True):
            found[place] = part
        with self._lock:  # whoever has his answer may ask again
            self.waiting -= sum(len(images) for images, _ in batch)
        for (_, future), end in zip(batch, found, strict=True):
            if isinstance(end, Tensor):
                future.set_result(end)
            else:
                future.set_exception(end)

    def _predicted(self, images: Tensor) -> Tensor | Exception:
        try:
            return predictions(self.service, images)
        except ValueError as error:
            return NoPrediction(str(error))
        except Exception as error:
            return error

    def _defended(self, requests: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Return the answers to pairs of images and predictions, once they are kept."""
        if not requests:
            return []
        images, clean = (torch.cat(part) for part in zip(*requests, strict=True))
        answers = defended(self.service, clean, images)
        if self.state:
            self.state.keep(self.service.defence, [x for x, _ in requests])
        self.service.asked += len(images)
        self.seen(len(images))
        return list(answers.split([len(x) for x, _ in requests]))


def guarded(service: Service, images: Tensor) -> Tensor:
    """Answer as `service` does, but with each image alone in the network: N×classes."""
    return defended(service, predictions(service, images), images)


@torch.no_grad()
def predictions(service: Service, images: Tensor) -> Tensor:
    """Return the network's probabilities, N×classes, of each image alone."""
    alone = [
        predict.logits(service.model, x, service.mean_std).softmax(1)
        for x in images.split(1)
    ]
    return torch.cat(alone)


@torch.no_grad()
def defended(service: Service, clean: Tensor, images: Tensor) -> Tensor:
    """Return what the service's defence makes of clean predictions, N×classes."""
    return service.defence(clean, images) if service.defence else clean
