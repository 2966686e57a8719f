"""The prediction service as its users run it: a process, asked over HTTP."""

import asyncio
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import serving
import torch

from lottolab.modelguard.queries import Service
from lottolab.modelguard.service.client import Remote
from lottolab.modelguard.service.state import State
from lottolab.modelguard.service.worker import guarded
from lottolab.nets import checkpoint

pytestmark = pytest.mark.usefixtures("on_one_thread")
BYTES = {"Content-Type": "application/octet-stream"}
PIXELS = serving.SIZE**2
WORDS = ("--epsilon", str(serving.EPSILON))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return serving.network(tmp_path_factory.mktemp("network") / "net.safetensors")


@pytest.fixture(scope="module")
def running(path, tmp_path_factory):
    """Serve ModelGuard-S; what it was asked before does not matter."""
    state = str(tmp_path_factory.mktemp("state") / "state")
    words = ("--state", state, "--patience", "0.5")
    with serving.server(path, *WORDS, *words) as (url, _):
        yield url


def test_a_proxy_is_not_asked_for_what_is_on_this_machine(running, monkeypatch):
    for proxy in ("socks5://127.0.0.1:9", "http://127.0.0.1:9"):
        monkeypatch.setenv("ALL_PROXY", proxy)
        for host in ("127.0.0.1", "localhost"):
            with closing(Remote(running.replace("127.0.0.1", host))) as remote:
                assert len(remote(serving.images(1, 7))) == 1
    with pytest.raises(RuntimeError, match="refused"):  # for all else it is
        Remote("http://lottolab.invalid")


def test_a_thief_asks_over_http_as_in_process(running, path):
    remote, x = Remote(running), serving.images(150, 7)
    answers = remote(x)
    assert remote.asked == 150
    assert remote.shape == (1, 8, 8)
    assert remote.classes == serving.CLASSES
    assert answers.dtype == torch.float32
    assert torch.equal(remote(x), answers)  # for ever
    clean = guarded(Service(checkpoint.load(path).model, serving.SCALE), x)
    assert (answers - clean).abs().sum(1).max() <= serving.EPSILON + 1e-6
    assert torch.equal(answers.argmax(1), clean.argmax(1))
    with pytest.raises(ValueError, match="takes images of"):
        remote(torch.zeros(1, 1, 9, 9, dtype=torch.uint8))
    with pytest.raises(RuntimeError, match="does not answer"):
        Remote("http://127.0.0.1:1")


def replayed(path, file, count, clients, seed):
    """Have clients ask side by side; compare with the replay of the admission log."""
    words = (*WORDS, "--log", "--state", str(file))
    every = serving.images(2 * count, seed)
    sizes = random.Random(seed).choices((1, 1, 2, 3), k=count)
    requests = [every[2 * i : 2 * i + size] for i, size in enumerate(sizes)]
    requests[count // 2 :: 5] = requests[
        : len(requests[count // 2 :: 5])
    ]  # asked again
    with serving.server(path, *words) as (url, _):

        def ask(mine):
            remote = Remote(url)
            return [remote(x) for x in mine]

        with ThreadPoolExecutor(clients) as pool:
            lots = [requests[i::clients] for i in range(clients)]
            answers = list(pool.map(ask, lots))
    got = [
        (x.numpy().tobytes(), answer.numpy().tobytes())
        for lot, found in zip(lots, answers, strict=True)
        for x, answer in zip(lot, found, strict=True)
    ]
    about = State.__new__(State)  # whatever it says it is of
    about.path, about.database = file, sqlite3.connect(file)
    twin = serving.target(path)
    again = [
        (x.images.numpy().tobytes(), guarded(twin, x.images).numpy().tobytes())
        for x in about.admitted((1, 8, 8))
    ]
    about.database.close()
    return got, again, twin.defence.count


def test_replaying_the_admission_log_gives_the_answers(tmp_path, path):
    got, again, opened = replayed(path, tmp_path / "state", 400, 8, 8)
    assert len(got) == 400
    assert sorted(got) == sorted(again)
    assert [x for x, _ in got] != [x for x, _ in again]  # they did mix
    assert opened > 50


@pytest.mark.long
def test_replaying_ten_thousand_requests_gives_the_answers(tmp_path, path):
    got, again, opened = replayed(path, tmp_path / "state", 10_000, 8, 9)
    assert len(got) == 10_000
    assert sorted(got) == sorted(again)
    assert opened > 200


def test_killed_in_the_middle_it_answers_old_queries_as_before(tmp_path, path):
    words, found = (*WORDS, "--state", str(tmp_path / "state")), {}
    with serving.server(path, *words, end=signal.SIGKILL) as (url, process):

        def ask(seed):
            remote = Remote(url)
            for x in serving.images(4000, seed).split(2):
                try:
                    answer = remote(x)
                except RuntimeError:
                    return  # it is dead
                found[x.numpy().tobytes()] = answer.numpy().tobytes()

        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask, 20 + i) for i in range(4)]
            while len(found) < 200:
                time.sleep(0.01)
            process.kill()
            assert [future.result() for future in asking] == [None] * 4
    assert len(found) < 8000  # it died in the middle
    with serving.server(path, *words) as (url, _):
        remote = Remote(url)
        for x, answer in found.items():
            images = torch.frombuffer(bytearray(x), dtype=torch.uint8)
            assert remote(images.view(-1, 1, 8, 8)).numpy().tobytes() == answer


def malformed(index):
    """Return the bytes of a request that no server should take."""
    draw = random.Random(index)
    body = draw.randbytes(draw.choice([0, 1, 63, 65, 100, 64 * 65, 70_000]))
    length, kind, first = len(body), BYTES["Content-Type"], "POST /predict HTTP/1.1"
    extra = ""
    match index % 8:
        case 0:
            kind = draw.choice(["", "text/plain", "application/json", "\x7f"])
        case 1:
            length += draw.randint(1, 1000)  # that never come
        case 2:
            length = draw.choice(["-1", "1e3", "0x40", "a", "64, 65", "9" * 30])
        case 3:
            first = draw.choice(["POST", "POST /predict HTTP/9.9", "\x00\x01", "A B C"])
        case 4:
            length, extra = None, "Transfer-Encoding: chunked\r\n"
            body = draw.choice(
                [b"zz\r\n", b"-1\r\n\r\n", b"0\r\n\r\n", b"1\r\na\r\n0\r\n\r\n"]
            )
        case 5:
            extra = "X: " + "a" * 100_000 + "\r\n"
        case 6:
            first = draw.choice(["GET /predict HTTP/1.1", "POST /predic HTTP/1.1"])
    told = "" if length is None else f"Content-Length: {length}\r\n"
    head = f"{first}\r\nHost: a\r\nConnection: close\r\nContent-Type: {kind}\r\n"
    return f"{head}{told}{extra}\r\n".encode() + body


def said(url, request):
    """Send bytes; return the status line's code."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as line:
        with suppress(OSError):  # it may refuse without reading on
            line.sendall(request)
        answer = b""
        while b"\r\n" not in answer and (part := line.recv(4096)):
            answer += part
    return answer.split(b" ")[1:2]


def test_malformed_requests_get_a_4xx_and_the_service_lives(running):
    remote, x = Remote(running), serving.images(3, 10)
    before = remote(x)
    with ThreadPoolExecutor(25) as pool:
        codes = pool.map(lambda index: said(running, malformed(index)), range(200))
        for index, code in enumerate(codes):
            assert code, f"request {index} got no answer"
            assert 400 <= int(code[0]) < 500, f"request {index} got {code[0]}"
    assert torch.equal(remote(x), before)
    assert httpx.get(running + "/model").status_code == 200


HOOKS = """
import schemathesis
from hypothesis import strategies

# The page says how long a body is, but cannot say: whole images of {pixels} bytes.
image = strategies.binary(min_size={pixels}, max_size={pixels})
images = strategies.lists(image, min_size=1, max_size=64).map(b"".join)
schemathesis.openapi.media_type("application/octet-stream", images)
"""


def schemathesised(url, folder, examples):
    """Run schemathesis on the service's own page; return what it printed."""
    (folder / "hooks.py").write_text(HOOKS.format(pixels=PIXELS))
    command = [Path(sys.executable).with_name("st"), "run", f"{url}/openapi.json"]
    command += ["--seed", "1", "-n", str(examples), "--checks", "all", "--no-color"]
    own = {k: v for k, v in os.environ.items() if k != "PYTHONIOENCODING"}  # its codec
    home = {"SCHEMATHESIS_HOOKS": str(folder / "hooks.py"), "PYTHONPATH": str(folder)}
    done = subprocess.run(
        command, cwd=folder, env=own | home, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_schemathesis_finds_nothing_wrong_with_the_page(running, tmp_path):
    schemathesised(running, tmp_path, 10)
    assert httpx.get(running + "/model").status_code == 200


@pytest.mark.long
def test_schemathesis_finds_nothing_in_many_examples(running, tmp_path):
    schemathesised(running, tmp_path, 300)
    assert httpx.get(running + "/model").status_code == 200


async def pressed(url, content, rate, seconds):
    """Ask at a fixed rate whatever comes back; return code, seconds and headers."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as http:

        async def ask(at):
            await asyncio.sleep(at)
            start = time.perf_counter()
            answer = await http.post("/predict", content=content, headers=BYTES)
            took = time.perf_counter() - start
            return answer.status_code, took, answer.headers

        count = int(rate * seconds)
        return await asyncio.gather(*[ask(i / rate) for i in range(count)])


def overloaded(folder, seconds):
    """Ask at four times its capacity; return what was answered, and the capacity."""
    size, most, limit = 28, 16, 64
    shape = {"name": "resnet8", "width": 32, "stem": "same", "size": size}
    content = serving.images(most, 11, size).numpy().tobytes()
    words = ("--defence", "none", "--most", str(most), "--limit", str(limit))
    slow = serving.network(folder / "net", **shape)
    with serving.server(slow, *words) as (url, _), httpx.Client(base_url=url) as http:
        start, count = time.perf_counter(), 0
        while time.perf_counter() < start + 0.4 * seconds:
            http.post("/predict", content=content, headers=BYTES).raise_for_status()
            count += 1
        capacity = count / (time.perf_counter() - start)
        found = asyncio.run(pressed(url, content, 4 * capacity, seconds))
        http.post("/predict", content=content, headers=BYTES).raise_for_status()
    return found, capacity, limit / most / capacity


def test_at_four_times_its_capacity_it_sheds_load_and_goes_on(tmp_path):
    found, _, _ = overloaded(tmp_path, 2.5)
    assert {code for code, _, _ in found} == {200, 503}
    assert all(h["retry-after"] == "1" for code, _, h in found if code == 503)


@pytest.mark.long  # its seconds mean something only where nothing else runs
def test_at_four_times_its_capacity_it_stays_quick(tmp_path):
    found, capacity, wait = overloaded(tmp_path, 5.0)
    for code in (200, 503):  # wait: until all that may be admitted are answered
        seconds = [took for c, took, _ in found if c == code]
        assert np.quantile(seconds, 0.99) < 2 * wait + 0.25
    served = sum(code == 200 for code, _, _ in found)
    assert served > 0.5 * 5.0 * capacity  # it still works
