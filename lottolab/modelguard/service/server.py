"""Listen, and keep those out who open connections and say nothing.

uvicorn bounds how long a connection may be idle between two requests
(`timeout_keep_alive`) and how large a head may be (`h11_max_incomplete_event_size`),
but not how long the first byte or the rest of a head may take. Its `limit_concurrency`
counts silent connections too, so that they would have all others refused.
"""

import functools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from lottolab.checks import require

CONNECTIONS = 768  # below the 1,024 files that a process may have open by default


class Bounded(H11Protocol):
    """A connection whose heads must come within `patience` seconds.

    Where there are more than `most`, the oldest that has sent no whole request goes.
    """

    def __init__(self, *arguments, patience: float, most: int, **named) -> None:
        super().__init__(*arguments, **named)
        self.patience, self.most, self._timer = patience, most, None

    @property
    def silent(self) -> bool:
        """Is it waiting for the head of a request?"""
        return self.cycle is None or self.cycle.response_complete

    @property
    def unfinished(self) -> bool:
        """Is it waiting for a request, or for the rest of one?"""
        return self.silent or self.cycle.more_body

    def connection_made(self, transport) -> None:
        """Wait for the first head."""
        super().connection_made(transport)
        self.since = self.loop.time()
        self._watch()
        if len(self.connections) > self.most:
            others = [c for c in self.connections if c.unfinished and c is not self]
            oldest = min(others, key=lambda c: c.since, default=self)
            self.connections.discard(oldest)
            oldest.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of a head, however often a byte of it comes."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        super().connection_lost(exc)
        if self._timer:
            self._timer.cancel()

    def _watch(self) -> None:
        if not self.silent:
            self.since = self.loop.time()
            if self._timer:
                self._timer.cancel()
            self._timer = None
        elif self._timer is None:
            self._timer = self.loop.call_later(self.patience, self._late)

    def _late(self) -> None:
        self._timer = None
        if self.silent:
            self.transport.abort()


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


def private(bound: socket.socket) -> bool:
    """Can a socket that listens be reached from this machine alone?"""
    host = bound.getsockname()[0]
    return host == "::1" or host.startswith("127.")


def run(
    api: ASGIApp,
    bound: socket.socket,
    *,
    patience: float = 10.0,
    operator: tuple[ASGIApp, socket.socket] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; what has been admitted is answered first.

    patience: seconds that a request's head may take. operator: another application,
    and where it is served meanwhile.
    """
    with beside(*operator) if operator else nullcontext():
        made(api, patience).run(sockets=[bound])


def made(api: ASGIApp, patience: float) -> uvicorn.Server:
    """Return a server of bounded connections that does not run yet."""
    http = functools.partial(Bounded, patience=patience, most=CONNECTIONS)
    config = uvicorn.Config(
        api, http=http, ws="none", log_level="warning", timeout_graceful_shutdown=10
    )
    return uvicorn.Server(config)


@contextmanager
def beside(api: ASGIApp, bound: socket.socket) -> Iterator[None]:
    """Serve an application in a thread of its own, as long as the context lasts."""
    server = made(api, 10.0)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [bound]}, daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()
