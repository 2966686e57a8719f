"""A service under load for long, killed now and then: nothing lost, nothing mixed."""

import asyncio
import signal
import socket
from collections import Counter
from contextlib import ExitStack, closing, suppress

import httpx
import pytest
import serving

from lottolab.modelguard.service import keys
from lottolab.modelguard.service.state import State
from lottolab.modelguard.service.worker import guarded
from lottolab.runs import store

pytestmark = pytest.mark.usefixtures("on_one_thread")
BYTES = {"Content-Type": "application/octet-stream"}
STREAMS = 16  # of the greedy client


class Soak:
    """Ask a service from many clients, one of them greedy, while it is killed."""

    def __init__(self, path, folder, requests, clients, kills):
        self.path, self.folder, self.left = path, folder, requests
        self.kills = [requests * (kills - i) // (kills + 1) for i in range(kills)]
        self.answered, self.refused, self.odd = Counter(), Counter(), []
        self.mixed, self.asked_again, self.found = 0, 0, {}
        self.images = serving.images(requests // 4 + 64, 12)
        names = [f"client{i}" for i in range(clients)]
        self.keys = {name: keys.add(folder / "keys", name) for name in names}
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def served(self):
        words = ["--epsilon", str(serving.EPSILON), "--log", "--port", str(self.port)]
        words += ["--keys", str(self.folder / "keys"), "--limit", "256"]
        words += ["--state", str(self.folder / "state")]
        return serving.server(self.path, *words, end=signal.SIGKILL)

    def run(self):
        asyncio.run(self._all())
        return self

    async def _all(self):
        url = f"http://127.0.0.1:{self.port}"
        limits = httpx.Limits(max_connections=None)
        with ExitStack() as running:
            running.enter_context(self.served())
            async with httpx.AsyncClient(
                base_url=url, limits=limits, timeout=60, trust_env=False
            ) as http:
                first, *others = self.keys
                asking = [self._stream(http, first, 16, s) for s in range(STREAMS)]
                asking += [self._stream(http, n, 2, i) for i, n in enumerate(others)]
                task = asyncio.gather(*asking)
                for at in self.kills:
                    while self.left > at and not task.done():
                        await asyncio.sleep(0.01)
                    await asyncio.to_thread(running.close)
                    context = self.served()
                    await asyncio.to_thread(running.enter_context, context)
                await task

    async def _stream(self, http, name, size, start):
        headers, place = BYTES | {"Authorization": f"Bearer {self.keys[name]}"}, start
        while self.left > 0:
            self.left -= 1
            place = (place * 31 + 7) % (len(self.images) - size)
            x = self.images[place : place + size]
            while isinstance(
                content := await self._asked(http, x, name, headers), float
            ):
                await asyncio.sleep(content)
            rows = [content[i : i + 40] for i in range(0, len(content), 40)]
            for image, row in zip(x, rows, strict=True):
                known = self.found.setdefault(image.numpy().tobytes(), row)
                self.mixed += known != row

    async def _asked(self, http, x, name, headers):
        """Return the answer, or the seconds after which to ask again."""
        with suppress(httpx.TransportError):  # it was killed: asked again
            answer = await http.post(
                "/predict", content=x.numpy().tobytes(), headers=headers
            )
            if answer.status_code == 200:
                self.answered[name] += 1
                return answer.content
            self.refused[name] += answer.status_code == 503
            if answer.status_code != 503:
                self.odd.append(answer.status_code)
            return float(answer.headers.get("Retry-After", 1))
        self.asked_again += 1
        return 0.05

    def replayed(self):
        """Return each image's answer by one process that reads the log."""
        about = {"defence": "modelguard-s", "epsilon": serving.EPSILON}
        about |= {"network": store.sha256(self.path)}
        twin, found = serving.target(self.path), {}
        with closing(State(self.folder / "state", about)) as state:
            for admission in state.admitted((1, 8, 8)):
                fresh = [x.numpy().tobytes() for x in admission.images]
                rows = guarded(twin, admission.images).numpy()
                found |= {x: row.tobytes() for x, row in zip(fresh, rows, strict=True)}
        return found


def soaked(folder, requests, clients=64, kills=3):
    """Return what came of it, checked."""
    path = serving.network(folder / "net.safetensors")
    soak = Soak(path, folder, requests, clients, kills).run()
    assert soak.odd == []
    assert sum(soak.answered.values()) == requests  # nothing lost
    assert soak.asked_again > 0  # it was killed
    assert soak.mixed == 0
    again = soak.replayed()
    assert all(again[x] == row for x, row in soak.found.items())
    greedy, *honest = soak.keys
    shares = [soak.answered[name] for name in honest]
    assert sum(soak.refused[name] for name in honest) == 0
    if requests >= 10_000:  # of fewer, each has only a handful
        assert min(shares) > 0.5 * max(shares)
    return soak, shares, soak.answered[greedy], soak.refused[greedy]


def test_a_short_soak_loses_and_mixes_nothing(tmp_path):
    soaked(tmp_path, 200, clients=8, kills=1)


@pytest.mark.long
def test_100000_requests_of_64_clients_and_three_kills_lose_and_mix_nothing(tmp_path):
    soaked(tmp_path, 100_000)
