"""A classifier behind HTTP: right answers, durable centroids, bad input, overload."""

import asyncio
import json
import os
import socket
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import serving
import torch
from torch import nn

from lottolab import cli
from lottolab.modelguard import commands
from lottolab.modelguard.experiments import services
from lottolab.modelguard.queries import Service
from lottolab.modelguard.service import endpoints, meters, server
from lottolab.modelguard.service.client import Remote
from lottolab.modelguard.service.keys import NOBODY
from lottolab.modelguard.service.line import Busy
from lottolab.modelguard.service.state import State
from lottolab.modelguard.service.worker import NoPrediction, Worker, guarded
from lottolab.nets import checkpoint, models
from lottolab.truth import results

pytestmark = pytest.mark.usefixtures("on_one_thread")
BYTES = {"Content-Type": "application/octet-stream"}
EPSILON = serving.EPSILON
WORDS = ("--epsilon", str(EPSILON))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return serving.network(tmp_path_factory.mktemp("network") / "net.safetensors")


# The state


def kept(file, path, requests, *, log=False):
    """Answer requests and keep what that opens; return state, service and answers."""
    state, asked = State(file, {"of": "test"}, log=log), serving.target(path)
    answers = []
    for x in requests:
        answers.append(guarded(asked, x))
        state.keep({"": asked.defence}, [(NOBODY, x)])
    return state, asked, answers


def by_class(defence):
    """Return the centroids of each class, in their order."""
    found = {c: [] for c in range(serving.CLASSES)}
    for row in defence.centroids.values[: defence.count].float():
        found[int(row.argmax())].append(row.tolist())
    return found


def test_centroids_come_back_in_their_order_bit_by_bit(tmp_path, path):
    x = serving.images(200, 0)
    state, asked, answers = kept(tmp_path / "a", path, x.split(7))
    state.close()
    again = serving.target(path)
    State(tmp_path / "a", {"of": "test"}).restore(again.defence)
    count = asked.defence.count
    assert 20 < count < 190
    assert again.defence.count == count
    assert by_class(again.defence) == by_class(asked.defence)
    assert torch.equal(guarded(again, x), torch.cat(answers))
    assert again.defence.count == count


def test_a_torn_tail_is_dropped_and_all_before_it_kept(tmp_path, path):
    """The log of writes is cut at many places, as a loss of power may leave it."""
    state, asked, _ = kept(tmp_path / "a", path, serving.images(60, 0).split(5))
    every = by_class(asked.defence)
    log = (tmp_path / "a-wal").read_bytes()  # the state still has it open
    head = (tmp_path / "a").read_bytes()
    state.close()
    found = set()
    for end in [*range(len(log) // 2, len(log), 997), len(log)]:
        for tail in (b"", os.urandom(600)):
            folder = tmp_path / f"{end}-{len(tail)}"
            folder.mkdir()
            (folder / "a").write_bytes(head)
            (folder / "a-wal").write_bytes(log[:end] + tail)
            guard = serving.target(path).defence
            torn = State(folder / "a", {"of": "test"})
            torn.restore(guard)
            torn.close()
            held = by_class(guard)
            assert all(held[c] == every[c][: len(held[c])] for c in held)
            found.add(guard.count)
    assert len(found) > 3
    assert max(found) == asked.defence.count


def test_a_damaged_row_another_service_and_no_database_are_refused(tmp_path, path):
    state, asked, _ = kept(tmp_path / "a", path, serving.images(60, 0).split(5))
    state.close()
    with pytest.raises(
        ValueError, match=r'state of {"of": "test"}, not of {"of": "x"}'
    ):
        State(tmp_path / "a", {"of": "x"})
    database = sqlite3.connect(tmp_path / "a")
    row = database.execute("SELECT data FROM centroids WHERE place = 3").fetchone()[0]
    broken = bytes([row[0] ^ 1]) + row[1:]
    with database:
        database.execute("UPDATE centroids SET data = ? WHERE place = 3", [broken])
    database.close()
    state = State(tmp_path / "a", {"of": "test"})
    with pytest.raises(ValueError, match="a is damaged, got row 3 of centroids"):
        state.restore(asked.defence)
    state.close()
    (tmp_path / "b").write_bytes(os.urandom(5000))
    with pytest.raises(ValueError, match="b is no state of a service"):
        State(tmp_path / "b", {})
    with pytest.raises(RuntimeError, match="cannot be opened"):
        State(tmp_path / "none" / "c", {})


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_state_is_its_owners_alone_whatever_the_umask(tmp_path, monkeypatch):
    connect, made = sqlite3.connect, []

    def noted(path, **options):
        made.append(os.stat(path).st_mode & 0o777)
        return connect(path, **options)

    monkeypatch.setattr(sqlite3, "connect", noted)
    before = os.umask(0)
    try:
        state = State(tmp_path / "a", {"seed": 1})
        beside = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()}
        state.close()
        os.chmod(tmp_path / "a", 0o644)  # as an earlier version made it
        State(tmp_path / "a", {"seed": 1}).close()
    finally:
        os.umask(before)
    assert made[0] == 0o600  # before a byte is in it
    assert beside == dict.fromkeys(["a", "a-wal", "a-shm", "a.lock"], 0o600)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_one_process_at_a_time_has_a_state_and_waits_for_the_disk(tmp_path):
    state = State(tmp_path / "a", {})
    with pytest.raises(RuntimeError, match="another service has it"):
        State(tmp_path / "a", {})
    full = 2  # https://sqlite.org/pragma.html#pragma_synchronous
    assert state.database.execute("PRAGMA synchronous").fetchone() == (full,)
    state.close()
    State(tmp_path / "a", {}).close()


def test_what_a_failed_write_did_not_keep_the_next_one_does(tmp_path, path):
    state, asked = State(tmp_path / "a", {"of": "test"}), serving.target(path)
    parts = serving.images(90, 0).split(30)
    guarded(asked, parts[0])
    state.keep({"": asked.defence}, [(NOBODY, parts[0])])
    first = state.durable[""]
    guarded(asked, parts[1])
    state.database.execute("PRAGMA query_only = ON")
    with pytest.raises(sqlite3.OperationalError):
        state.keep({"": asked.defence}, [(NOBODY, parts[1])])
    assert state.durable[""] == first < asked.defence.count
    state.database.execute("PRAGMA query_only = OFF")
    guarded(asked, parts[2])
    state.keep({"": asked.defence}, [(NOBODY, parts[2])])
    assert state.durable[""] == asked.defence.count
    state.close()
    guard = serving.target(path).defence
    State(tmp_path / "a", {"of": "test"}).restore(guard)
    assert guard.count == asked.defence.count


# The worker


class Held:
    """A defence that waits until it may answer, and says that it has begun."""

    def __init__(self):
        self.begun, self.free = threading.Event(), threading.Event()

    def __call__(self, probs, x=None):
        self.begun.set()
        assert self.free.wait(60)
        return probs.clone()


def test_an_answer_does_not_depend_on_who_asks_beside(path):
    x, sizes = serving.images(300, 1), []
    asked = Service(checkpoint.load(path).model, serving.SCALE, Held())
    worker = Worker(asked, seen=sizes.append)
    first = worker.submit(x[:1])
    asked.defence.begun.wait(60)
    rest = [worker.submit(part) for part in x[1:].split(11)]
    asked.defence.free.set()
    together = torch.cat([f.result(60) for f in (first, *rest)])
    worker.stop()
    assert asked.asked == sum(sizes) == 300
    assert sizes[0] == 1
    assert sizes[1] >= 256  # all that waited, up to the largest batch
    bare = Service(asked.model, asked.mean_std)
    alone = torch.cat([guarded(bare, one) for one in x.split(1)])
    assert torch.equal(together, alone)
    assert len(alone.unique(dim=0)) == 300


def test_too_much_is_refused_at_once_and_stopping_answers_what_was_admitted(path):
    asked = Service(checkpoint.load(path).model, serving.SCALE, Held())
    worker, x = Worker(asked, limit=10), serving.images(10, 2)
    futures = [worker.submit(x[:4]), worker.submit(x[4:])]
    with pytest.raises(Busy):
        worker.submit(x[:1])
    assert worker.waiting == 10
    asked.defence.free.set()
    assert torch.cat([f.result(60) for f in futures]).shape == (10, serving.CLASSES)
    later = worker.submit(x)
    worker.stop()
    assert len(later.result(0)) == 10
    assert worker.waiting == 0
    with pytest.raises(Busy):
        worker.submit(x)
    with pytest.raises(ValueError, match="images must be <= 10, got 11"):
        worker.submit(serving.images(11, 0))


class Overflows(nn.Module):
    """Logits are finite, sure beyond float32's softmax, infinite or NaN by a pixel."""

    VALUES = (3.0, 1e30, torch.inf, torch.nan)

    def __init__(self):
        super().__init__()
        self.device_of = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        level = x[:, 0, 0, 0].mul(255).round().long()
        logits = torch.zeros(len(x), serving.CLASSES)
        logits[:, 2] = torch.tensor(self.VALUES)[level]
        return logits


PIXELS = torch.zeros(1), torch.ones(1)  # as mean and std


def levels(*values):
    """Return an image for each value, which is the index of Overflows' logit."""
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)


def test_a_request_without_a_finite_prediction_costs_no_other_its_answer(tmp_path):
    state = State(tmp_path / "a", {}, log=True)
    guard = services.served("modelguard-s", {"epsilon": 0.5}, serving.CLASSES)
    asked, sizes = Service(Overflows(), PIXELS, guard), []
    worker = Worker(asked, state, seen=sizes.append)
    futures = [worker.submit(levels(*v)) for v in ((0, 1), (1, 2), (3,), (1,), (0,))]
    bad = [futures.pop(1), futures.pop(1)]
    found = torch.cat([f.result(60) for f in futures])
    for future in bad:
        with pytest.raises(NoPrediction, match="logits must be finite"):
            future.result(60)
    worker.stop()
    one_hot = torch.eye(serving.CLASSES)[2]
    assert torch.equal(found[1:3], one_hot.expand(2, -1))
    assert torch.equal(found[0], found[3])
    assert worker.waiting == 0
    assert asked.asked == sum(sizes) == 4
    admitted = [x.images[:, 0, 0, 0].tolist() for x in state.admitted((1, 8, 8))]
    assert admitted == [[0, 1], [1], [0]]
    state.close()


def test_no_answer_leaves_before_its_centroids_are_kept(tmp_path, path, monkeypatch):
    state, asked = State(tmp_path / "a", {}), serving.target(path)
    begun, free, keep = threading.Event(), threading.Event(), state.keep

    def slow(*arguments):
        begun.set()
        assert free.wait(60)
        keep(*arguments)

    monkeypatch.setattr(state, "keep", slow)
    worker = Worker(asked, state)
    future = worker.submit(serving.images(5, 3))
    assert begun.wait(60)
    assert not future.done()
    assert state.durable == {}
    free.set()
    future.result(60)
    assert state.durable[""] == asked.defence.count > 0
    worker.stop()


# The application


def test_bytes_in_bytes_out_and_what_the_pages_say(tmp_path, path):
    asked, twin, x = serving.target(path), serving.target(path), serving.images(6, 4)
    api = endpoints.app(asked, (1, 8, 8), 10, state=State(tmp_path / "a", {}), most=8)
    with serving.within(api) as http, serving.within(meters.app(api)) as own:
        answer = http.post("/predict", content=x.numpy().tobytes(), headers=BYTES)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/octet-stream"
        wanted = guarded(twin, x).numpy().astype("<f4").tobytes()
        assert answer.content == wanted
        sizes = {"channels": 1, "height": 8, "width": 8, "classes": 10}
        assert http.get("/model").json() == sizes | {"most_images": 8}
        assert own.get("/health").json() == {"status": "ok"}
        http.post("/predict", content=b"")
        lines = own.get("/metrics").text.splitlines()
        assert 'lottolab_requests_total{status="200"} 1.0' in lines
        assert 'lottolab_requests_total{status="415"} 1.0' in lines
        assert "lottolab_answered_images 6.0" in lines
        assert f"lottolab_centroids {twin.defence.count:.1f}" in lines
        assert "lottolab_waiting_images 0.0" in lines
        assert http.get("/docs").status_code == 404  # it would ask a foreign host
        api.state.worker.stop()
        assert own.get("/health").status_code == 503


@pytest.mark.parametrize(
    ("content", "headers", "code", "part"),
    [
        (b"", BYTES, 400, "images of 64 bytes each (1×8×8), got 0 bytes"),
        (b"a" * 63, BYTES, 400, "got 63 bytes"),
        (b"a" * 65, BYTES, 400, "got 65 bytes"),
        (b"a" * 64 * 9, BYTES, 413, "at most 8 images of 64 bytes"),
        (b"a" * 64, {}, 415, "must be application/octet-stream"),
        (b"a" * 64, {"Content-Type": "image/png"}, 415, "application/octet-stream"),
        (b"a" * 64, BYTES | {"Content-Encoding": "gzip"}, 415, "encoded (gzip)"),
        (b"a" * 64, BYTES | {"Content-Encoding": "Identity"}, 200, ""),
        (iter([b"a" * 64] * 9), BYTES, 413, "at most 8 images"),  # length not told
    ],
)
def test_a_bad_body_gets_a_reason(path, content, headers, code, part):
    with serving.within(
        endpoints.app(serving.target(path), (1, 8, 8), 10, most=8)
    ) as http:
        answer = http.post("/predict", content=content, headers=headers)
        assert answer.status_code == code
        assert code == 200 or part in answer.json()["detail"]


def test_what_fails_inside_is_a_500_that_the_page_tells_of(path):
    def broken(probs, x=None):
        raise KeyError("inside")

    x, pages = levels(1).numpy().tobytes(), []
    for model, guard, said in [
        (Overflows(), None, "the model's logits must be finite"),
        (checkpoint.load(path).model, broken, "its log says why"),
    ]:
        api = endpoints.app(Service(model, PIXELS, guard), (1, 8, 8), 10)
        content = levels(2).numpy().tobytes()
        with serving.within(api) as http:
            answer = http.post("/predict", content=content, headers=BYTES)
            assert answer.status_code == 500
            assert answer.headers["content-type"] == "application/json"
            assert said in answer.json()["detail"]
            assert api.state.worker.alive
            if guard is None:
                sure = http.post("/predict", content=x, headers=BYTES)
                row = np.frombuffer(sure.content, "<f4").tolist()
                assert row == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
            pages.append(http.get("/openapi.json").json())
    for page in pages:
        answers = page["paths"]["/predict"]["post"]["responses"]
        assert set(answers) >= {"200", "400", "408", "413", "415", "500", "503"}
        assert "head" not in page["paths"]["/model"]


@pytest.mark.parametrize("place", ["/health", "/model", "/metrics", "/openapi.json"])
def test_head_is_get_without_a_body_and_other_methods_name_both(path, place):
    """RFC 9110, sections 9.1, 9.3.2 and 15.5.6."""
    api = endpoints.app(serving.target(path), (1, 8, 8), 10)
    side = meters.app(api) if place in ("/health", "/metrics") else api
    with serving.within(api), serving.within(side) as http:
        head, get = http.head(place), http.get(place)
        assert head.status_code == get.status_code == 200
        assert head.content == b""
        assert head.headers["content-type"] == get.headers["content-type"]
        assert head.headers["content-length"] == str(len(get.content))
        other = http.request("PATCH", place)
        assert other.status_code == 405
        assert set(other.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_a_body_that_is_too_large_is_not_read(path):
    read = []

    def parts():
        for _ in range(1000):
            read.append(1)
            yield b"a" * 64

    async def ask():
        api = endpoints.app(serving.target(path), (1, 8, 8), 10, most=8)
        messages = (
            {"type": "http.request", "body": p, "more_body": True} for p in parts()
        )
        sent = []

        async def receive():
            return next(messages)

        async def send(message):
            sent.append(message)

        kind = [(b"content-type", b"application/octet-stream")]
        scope = {"type": "http", "method": "POST", "path": "/predict"}
        scope |= {"headers": kind, "query_string": b"", "http_version": "1.1"}
        await api(scope, receive, send)
        return sent[0]["status"]

    assert asyncio.run(ask()) == 413
    assert len(read) <= 10


def test_a_full_queue_and_a_full_disk_answer_503_and_when_to_come_again(path, tmp_path):
    x = serving.images(8, 5).numpy().tobytes()
    held = Service(checkpoint.load(path).model, serving.SCALE, Held())
    with serving.within(endpoints.app(held, (1, 8, 8), 10, most=8, limit=8)) as http:
        with ThreadPoolExecutor(1) as pool:
            ask = {"content": x, "headers": BYTES}
            first = pool.submit(http.post, "/predict", **ask)
            assert held.defence.begun.wait(60)
            full = http.post("/predict", **ask)
            held.defence.free.set()
            assert first.result(60).status_code == 200
        assert full.status_code == 503
        assert full.headers["retry-after"] == "1"
        assert "images are waiting" in full.json()["detail"]
    state = State(tmp_path / "a", {})
    state.database.execute("PRAGMA query_only = ON")
    with serving.within(
        endpoints.app(serving.target(path), (1, 8, 8), 10, state=state)
    ) as http:
        lost = http.post("/predict", content=x, headers=BYTES)
        assert lost.status_code == 503
        assert "cannot be made durable" in lost.json()["detail"]
        state.database.execute("PRAGMA query_only = OFF")
        assert http.post("/predict", content=x, headers=BYTES).status_code == 200


# The command


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--defence", "modelgard-s"], ["did you mean modelguard-s"]),
        ([], ["modelguard-s takes --epsilon, got none"]),
        (["--epsilon", "3"], ["epsilon must be in [0, 2], got 3.0"]),
        (
            ["--defence", "top-1", *WORDS],
            ["top-1 takes no options, got --epsilon"],
        ),
        (
            ["--defence", "revsig", "--beta", "1"],
            ["--beta and --gamma, got --beta 1.0"],
        ),
        (["--defence", "mad", *WORDS], ["mad needs the thief's surrogate"]),
        (["--defence", "am"], ["am needs a second network"]),
        (["--defence", "warm-modelguard-s", *WORDS], ["its owner's training images"]),
        ([*WORDS, "--port", "70000"], ["port must be in [0, 65535], got 70000"]),
        (
            [*WORDS, "--port", "0", "--limit", "3"],
            ["limit must be a whole number >= 64"],
        ),
        (["--epsilon", "a"], ["--epsilon"]),
    ],
)
def test_bad_options_are_one_line_and_nothing_is_served(
    path, tmp_path, monkeypatch, capfd, words, parts
):
    monkeypatch.setattr(server, "run", lambda *_, **__: pytest.fail("it was served"))
    file = ["--state", str(tmp_path / "state")]
    assert cli.main(["modelguard", "serve", str(path), *file, *words]) == 2
    said = capfd.readouterr().err
    assert said.startswith("lottolab: ")
    assert len(said.splitlines()) == 1
    assert all(part in said for part in parts)


def test_bad_files_and_a_port_in_use_are_one_line(path, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(server, "run", lambda *_, **__: pytest.fail("it was served"))
    call = ["modelguard", "serve", *WORDS, "--state", str(tmp_path / "state")]
    (tmp_path / "pickle").write_bytes(b"\x80\x04K\x01." * 10)
    (tmp_path / "state").write_bytes(b"no database " * 100)
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = ["--port", str(used.getsockname()[1])]
        for words, code, part in [
            ([str(tmp_path / "none")], 1, "none is missing"),
            ([str(tmp_path / "pickle")], 2, "never opened"),
            ([str(path), *port], 1, "cannot be used (Address already in use)"),
            ([str(path), "--port", "0"], 2, "state is no state of a service"),
        ]:
            assert cli.main([*call, *words]) == code
            said = capfd.readouterr().err
            assert part in said
            assert len(said.splitlines()) == 1


@pytest.fixture
def ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return "::1"
    except OSError:
        pytest.skip("no IPv6 here")


def test_an_ipv6_address_is_printed_as_one_that_can_be_asked(
    path, tmp_path, monkeypatch, capfd, ipv6
):
    def run(api, bound, **_):
        url = capfd.readouterr().out.split(": ")[0]
        with serving.within(api, bound):
            remote = Remote(url)
            assert remote(serving.images(2, 0)).shape == (2, serving.CLASSES)
            remote.close()

    monkeypatch.setattr(server, "run", run)
    words = [*WORDS, "--state", str(tmp_path / "s"), "--host", ipv6, "--port", "0"]
    assert cli.main(["modelguard", "serve", str(path), *words]) == 0


def test_a_host_that_is_no_name_is_one_line(path, tmp_path, capfd):
    words = [*WORDS, "--state", str(tmp_path / "state"), "--host", "a" * 70 + ".de"]
    assert cli.main(["modelguard", "serve", str(path), *words]) == 1
    said = capfd.readouterr().err
    assert "port 8000 cannot be used" in said
    assert len(said.splitlines()) == 1


def test_the_chapters_target_becomes_a_file(tmp_path, monkeypatch, capsys):
    """With a target in place of the chapter's, whose training takes a minute."""
    description = {k: serving.NETWORK[k] for k in ("name", "width", "stem")}
    glyphs = {"name": "glyphs", "classes": 10, "images": 20, "seed": 0}
    own = {"dataset": glyphs, "network": description, "seed": 3}
    asked = {"defence": {"name": "none"}, "public": glyphs, "budget": 5}
    stages = pd.DataFrame([{"function": commands.TIMED, "arguments": own | asked}])
    stages["arguments"] = stages["arguments"].map(json.dumps)
    monkeypatch.setattr(results, "read_stages", lambda *_: stages)
    model = models.build(**serving.NETWORK, seed=4)

    def trained(**setting):
        assert setting == own
        images = torch.zeros(2, 1, serving.SIZE, serving.SIZE, dtype=torch.uint8)
        return Service(model, serving.SCALE), {"train": (images, None), "classes": 10}

    monkeypatch.setattr(services, "trained", trained)
    file = tmp_path / "target"
    assert cli.main(["modelguard", "target", str(file), "--seed", "3"]) == 0
    assert "cnn4, 10 classes of glyphs" in capsys.readouterr().out
    found, x = checkpoint.load(file), serving.images(5, 0)
    assert found.network == serving.NETWORK
    same = [Service(m, found.mean_std)(x) for m in (model, found.model)]
    assert torch.equal(*same)
    assert cli.main(["modelguard", "target", str(file), "--seed", "3"]) == 2
    assert "exists" in capsys.readouterr().err
    assert cli.main(["modelguard", "target", str(tmp_path / "b"), "--seed", "9"]) == 2
    assert "seed must be one of 3, got 9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("none", {}),
        ("top-1", {}),
        ("rounding", {"decimals": 1}),
        ("revsig", {"beta": 0.2, "gamma": 0.2}),
        ("modelguard-w", {"epsilon": 1.0}),
        ("noise", {"epsilon": 1.0, "fixed": True, "seed": 3}),
        ("unordered", {"epsilon": EPSILON}),
    ],
)
def test_every_defence_that_needs_no_other_network_answers_as_in_process(
    path, name, options
):
    found, x = checkpoint.load(path), serving.images(40, 6)
    twin = Service(found.model, found.mean_std, services.served(name, options, 10))
    asked = Service(found.model, found.mean_std, services.served(name, options, 10))
    with serving.within(endpoints.app(asked, found.shape, 10)) as http:
        answers = []
        for part in x.split(8):
            content = part.numpy().tobytes()
            answer = http.post("/predict", content=content, headers=BYTES)
            answers.append(np.frombuffer(answer.content, "<f4"))
    wanted = torch.cat([guarded(twin, part) for part in x.split(8)])
    assert np.array_equal(np.concatenate(answers), wanted.numpy().ravel())
