"""Answer the requests of many clients in one thread, in batches, in their turns."""

import itertools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future

import torch
from torch import Tensor

from lottolab.checks import require, whole
from lottolab.modelguard.queries import Defence, Service
from lottolab.modelguard.service.keys import NOBODY, Client
from lottolab.modelguard.service.line import Busy, Line, Request
from lottolab.modelguard.service.state import State
from lottolab.modelguard.service.tenants import Tenants
from lottolab.nets import predict

BATCH = 256  # images at most that are answered together


class NoPrediction(Exception):
    """The network's prediction for an image is not finite."""


class Spent(Exception):
    """A key's quota does not hold so many images any more."""


class Worker:
    """Own a service and its state, and answer what is submitted.

    While a batch is answered, the requests that come in make up the next one: they
    share one call of the defence and one wait for the disk. Each image goes through the
    network alone, because a network's float32 results depend on the size of its batch;
    so nobody's answer depends on who asks beside him.

    limit: images that may wait or be answered at a time. seen: is told the number of
    images of each batch. tenants: whose state answers, one for all by default. quotas:
    images that a key may ask for in its life, by its name.
    """

    def __init__(
        self,
        service: Service,
        state: State | None = None,
        *,
        limit: int = 512,
        seen: Callable[[int], None] | None = None,
        tenants: Tenants | None = None,
        quotas: Mapping[str, int] | None = None,
    ) -> None:
        whole("limit", limit, 1)
        self.service, self.state, self.limit = service, state, limit
        self.seen = seen or (lambda count: None)
        self.tenants = tenants or Tenants(service.defence)
        self.quotas = quotas or {}
        self.asked = dict(state.asked()) if state else {}  # or admitted, by key
        self._line, self._counting = Line(limit), threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, images: Tensor, client: Client = NOBODY) -> Future:
        """Admit a request; the future gives its answers, float32 N×classes.

        It raises Busy where another, who had less in the line, took its place.

        Args:
            images: uint8 N×C×H×W, as the network takes them.

        Raises:
            Busy: too many images are waiting, or the thread has ended.
            Spent: the client's quota does not hold them.
        """
        require(
            len(images) <= self.limit, f"images must be <= {self.limit}", len(images)
        )
        if not self.alive:
            raise Busy
        future = Future()
        future.set_running_or_notify_cancel()  # nobody who hangs up can cancel it
        self._count(client.key, len(images))
        future.add_done_callback(
            lambda done: done.exception() and self._count(client.key, -len(images))
        )
        try:
            self._line.put(Request(client, images, future))
        except Busy as busy:
            future.set_exception(busy)
            raise
        return future

    @property
    def waiting(self) -> int:
        """Images that have been admitted and not yet answered."""
        return self._line.count

    @property
    def alive(self) -> bool:
        """Does the thread still answer?"""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Answer what has been admitted, then end the thread."""
        self._line.close()
        self._thread.join()

    def _count(self, key: str, images: int) -> None:
        with self._counting:
            asked = self.asked.get(key, 0) + images
            if images > 0 and asked > self.quotas.get(key, asked):
                raise Spent
            self.asked[key] = asked

    def _run(self) -> None:
        torch.set_num_threads(1)  # holds for this thread alone
        # Whoever is being answered cannot make room, so that half of it always can.
        most = max(1, min(BATCH, self.limit // 2))
        while batch := self._line.take(most):
            self._answer(batch)

    def _answer(self, batch: list[Request]) -> None:
        """Answer requests; one without a prediction costs no other its answer."""
        found = [self._predicted(request.images) for request in batch]
        sound = [i for i, rows in enumerate(found) if isinstance(rows, Tensor)]
        try:
            parts = self._defended([(batch[i], found[i]) for i in sound])
        except Exception as error:
            parts = [error] * len(sound)
        for place, part in zip(sound, parts, strict=True):
            found[place] = part
        # Whoever has his answer may ask again.
        self._line.done(sum(len(request.images) for request in batch))
        for request, end in zip(batch, found, strict=True):
            if isinstance(end, Tensor):
                request.future.set_result(end)
            else:
                request.future.set_exception(end)

    def _predicted(self, images: Tensor) -> Tensor | Exception:
        try:
            return predictions(self.service, images)
        except ValueError as error:
            return NoPrediction(str(error))
        except Exception as error:
            return error

    def _defended(self, pairs: list[tuple[Request, Tensor]]) -> list[Tensor]:
        """Return the answers to requests and predictions, once they are kept."""
        if not pairs:
            return []

        def tenant(place: int) -> str:
            return self.tenants.name(pairs[place][0].client.key)

        found: dict[int, Tensor] = {}
        places = sorted(range(len(pairs)), key=tenant)  # stable: each in his order
        groups = [(n, list(own)) for n, own in itertools.groupby(places, key=tenant)]
        for name, own in groups:
            images = torch.cat([pairs[i][0].images for i in own])
            clean = torch.cat([pairs[i][1] for i in own])
            answers = defended(self.tenants.of(name), clean, images)
            sizes = [len(pairs[i][1]) for i in own]
            found |= dict(zip(own, answers.split(sizes), strict=True))
        if self.state:
            order = [pairs[i][0] for i in places]
            admitted = [(request.client, request.images) for request in order]
            self.state.keep(self.tenants.held, admitted)
        count = sum(map(len, found.values()))
        self.service.asked += count
        self.seen(count)
        return [found[place] for place in range(len(pairs))]


def guarded(service: Service, images: Tensor) -> Tensor:
    """Answer as `service` does, but with each image alone in the network: N×classes."""
    return defended(service.defence, predictions(service, images), images)


@torch.no_grad()
def predictions(service: Service, images: Tensor) -> Tensor:
    """Return the network's probabilities, N×classes, of each image alone."""
    alone = [
        predict.logits(service.model, x, service.mean_std).softmax(1)
        for x in images.split(1)
    ]
    return torch.cat(alone)


@torch.no_grad()
def defended(defence: Defence | None, clean: Tensor, images: Tensor) -> Tensor:
    """Return what a defence makes of clean predictions, N×classes."""
    return defence(clean, images) if defence else clean
