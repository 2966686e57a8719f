"""Who waits, and whose turn it is: greedy clients wait for themselves.

Turns go by images and by client: start-time fair queueing (Goyal et al., 1996). Where
there is no room left, whoever has most in the line makes room for one who has less:
the longest queue drops its last (Suter et al., 1998).
"""

import threading
from collections import deque
from concurrent.futures import Future
from typing import NamedTuple

from torch import Tensor

from lottolab.modelguard.service.keys import Client


class Busy(Exception):
    """No more images are admitted for now."""


class Request(NamedTuple):
    """Images of a client, uint8 N×C×H×W, and where their answers go."""

    client: Client
    images: Tensor
    future: Future


class Line:
    """Keep requests in the order of their turns.

    limit: images that may wait or be answered at a time. count: how many do.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.count = limit, 0
        self._ready, self._closed = threading.Condition(), False
        self._queues: dict[str, deque[Request]] = {}
        self._sizes: dict[str, int] = {}  # images of each queue
        self._turns: dict[
            str, int
        ] = {}  # images that were served before it is its turn
        self._now = 0

    def put(self, request: Request) -> None:
        """Let a request wait; others that must leave for it are told that it is busy.

        Raises Busy where there is no room for it.
        """
        who, size = request.client.who, len(request.images)
        with self._ready:
            if self._closed:
                raise Busy
            leaving = self._leaving(who, size)
            for victim in leaving:
                self._queues[victim.client.who].pop()
                self._gone(victim, len(victim.images))
            if who not in self._queues:
                self._queues[who], self._sizes[who] = deque(), 0
                self._turns[who] = self._now
            self._queues[who].append(request)
            self._sizes[who] += size
            self.count += size
            self._ready.notify()
        for victim in leaving:
            victim.future.set_exception(Busy())

    def take(self, most: int) -> list[Request]:
        """Wait for requests and return whose turn it is, until they hold `most` images.

        Returns an empty list when the line is closed and nobody waits.
        """
        with self._ready:
            while not self._queues and not self._closed:
                self._ready.wait()
            batch, count = [], 0
            while self._queues and count < most:
                who = min(self._turns, key=self._turns.__getitem__)
                request = self._queues[who].popleft()
                self._now = self._turns[who]
                self._turns[who] += len(request.images)
                self._gone(request, 0)
                batch.append(request)
                count += len(request.images)
            return batch

    def done(self, count: int) -> None:
        """Give the room of so many answered images free."""
        with self._ready:
            self.count -= count

    def close(self) -> None:
        """Take nobody in any more."""
        with self._ready:
            self._closed = True
            self._ready.notify()

    def _leaving(self, who: str, size: int) -> list[Request]:
        """Return which requests must go, last ones of the longest queues; or raise."""
        over, sizes, leaving = self.count + size - self.limit, dict(self._sizes), []
        lasts = {}
        while over > 0:
            longest = max(sizes, key=sizes.__getitem__, default=who)
            if sizes.get(longest, 0) <= sizes.get(who, 0) + size:
                raise Busy
            last = lasts.setdefault(longest, reversed(self._queues[longest]))
            leaving.append(victim := next(last))
            sizes[longest] -= len(victim.images)
            over -= len(victim.images)
        return leaving

    def _gone(self, request: Request, freed: int) -> None:
        who = request.client.who
        self._sizes[who] -= len(request.images)
        self.count -= freed
        if not self._queues[who]:
            del self._queues[who], self._sizes[who], self._turns[who]
