"""A service before strangers: what each may learn, ask for, and take from others."""

import os
import socket
import sqlite3
import threading
import time
from contextlib import closing, suppress

import httpx
import numpy as np
import pytest
import serving
import torch
from sklearn.metrics import roc_auc_score

from lottolab import cli
from lottolab.modelguard.queries import Service
from lottolab.modelguard.service import endpoints, keys, meters, server
from lottolab.modelguard.service.client import Remote
from lottolab.modelguard.service.keys import NOBODY, Client
from lottolab.modelguard.service.line import Busy
from lottolab.modelguard.service.state import State
from lottolab.modelguard.service.tenants import Tenants
from lottolab.modelguard.service.worker import Spent, Worker, guarded
from lottolab.nets import checkpoint

pytestmark = pytest.mark.usefixtures("on_one_thread")
BYTES = {"Content-Type": "application/octet-stream"}
WORDS = ("--epsilon", str(serving.EPSILON))
ANN, BOB = Client("ann", ""), Client("bob", "")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return serving.network(tmp_path_factory.mktemp("network") / "net.safetensors")


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """Return a file of two keys, the second with a quota of 5, and their texts."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    return file, keys.add(file, "ann"), keys.add(file, "bob", 5)


def bearing(key):
    return BYTES | {"Authorization": f"Bearer {key}"}


# What an answer tells


def test_a_clients_port_tells_nothing_of_centroids(path):
    api = endpoints.app(serving.target(path), (1, 8, 8), 10)
    with serving.within(api) as http:
        paths = set(http.get("/openapi.json").json()["paths"])
        assert paths == {"/predict", "/model"}
        for place in ("/metrics", "/health"):
            assert http.get(place).status_code == 404


def test_every_answer_waits_for_the_disk_and_writes_as_much(tmp_path, path):
    """Whether it opened a centroid must not show in its time (AUC 0.84 before)."""
    state, asked = State(tmp_path / "a", {}), serving.target(path)
    log, written = tmp_path / "a-wal", {True: [], False: []}
    state.database.execute("PRAGMA wal_autocheckpoint = 0")
    for x in serving.images(300, 1).split(1):
        before, size = asked.defence.count, log.stat().st_size
        guarded(asked, x)
        state.keep({"": asked.defence}, [(NOBODY, x)])
        written[asked.defence.count > before].append(log.stat().st_size - size)
    assert min(map(len, written.values())) > 20
    assert min(written[False]) > 0  # and so it was synced
    assert np.median(written[True]) == np.median(written[False])
    state.close()


@pytest.mark.long  # its seconds mean something only where nothing else runs
def test_the_time_of_a_reply_does_not_tell_an_opener(tmp_path, path):
    opened, took = reply_times(path, tmp_path / "a", 2000)
    assert 0.35 < roc_auc_score(opened, took) < 0.65


def reply_times(path, file, count):
    """Ask one image after the other; tell which opened a centroid, and the seconds."""
    twin, opened, took = serving.target(path), [], []
    words = (*WORDS, "--state", str(file))
    with serving.server(path, *words) as (url, _), httpx.Client(base_url=url) as http:
        for x in serving.images(count, 2).split(1):
            before, content = twin.defence.count, x.numpy().tobytes()
            guarded(twin, x)
            opened.append(twin.defence.count > before)
            start = time.perf_counter()
            answer = http.post("/predict", content=content, headers=BYTES)
            took.append(time.perf_counter() - start)
            assert answer.status_code == 200
    return opened, took


# Tenants


@pytest.mark.parametrize("apart", [False, True])
def test_a_state_is_shared_or_a_keys_own_by_choice_also_after_a_crash(
    tmp_path, path, apart
):
    """Shared, a second client gets the first one's exact prediction; apart, his own."""
    x, file = serving.images(120, 3), tmp_path / "a"
    near = (x.int() + 1).clamp(max=255).to(torch.uint8)
    bare = Service(checkpoint.load(path).model, serving.SCALE)
    clean = {"ann": guarded(bare, x), "bob": guarded(bare, near)}
    answers = {}
    for _ in range(2):  # the second time as it was kept
        service = serving.target(path)
        state = State(file, {})
        tenants = Tenants(service.defence, apart)
        tenants.restore(state)
        worker = Worker(service, state, tenants=tenants)
        futures = {"ann": worker.submit(x, ANN), "bob": worker.submit(near, BOB)}
        found = {name: future.result(60) for name, future in futures.items()}
        worker.stop()
        state.close()
        for name, answer in found.items():
            assert torch.equal(answers.setdefault(name, answer), answer)
    alone = {}
    for name, images in (("ann", x), ("bob", near)):
        alone[name] = guarded(serving.target(path), images)
    assert torch.equal(answers["ann"], alone["ann"])
    assert torch.equal(answers["bob"], alone["bob"]) == apart
    told = (answers["bob"] == clean["ann"]).all(1) & (clean["ann"] != clean["bob"]).any(
        1
    )
    assert (int(told.sum()) == 0) == apart


def test_a_key_is_asked_for_before_the_body_and_a_quota_outlives_a_crash(
    tmp_path, path, held
):
    file, ann, bob = held
    x = serving.images(3, 4).numpy().tobytes()
    for first in (True, False):
        service, state = serving.target(path), State(tmp_path / "a", {})
        api = endpoints.app(service, (1, 8, 8), 10, state=state, keys=keys.read(file))
        with serving.within(api) as http:
            for odd in (
                BYTES,
                bearing("a"),
                bearing("a b"),
                BYTES | {"Authorization": ann},
            ):
                for body in (x, b"", b"a" * 100_000):
                    answer = http.post("/predict", content=body, headers=odd)
                    assert answer.status_code == 401
                    assert answer.headers["www-authenticate"] == "Bearer"
            codes = [
                http.post("/predict", content=x, headers=bearing(bob)).status_code
                for _ in range(2)
            ]
            assert codes == ([200, 403] if first else [403, 403])
            for _ in range(3):
                answer = http.post("/predict", content=x, headers=bearing(ann))
                assert answer.status_code == 200
            two = http.post("/predict", content=x[:128], headers=bearing(bob))
            assert two.status_code == (200 if first else 403)
            page = http.get("/openapi.json").json()
            assert page["paths"]["/predict"]["post"]["security"]
            assert set(page["paths"]["/predict"]["post"]["responses"]) >= {"401", "403"}
            with closing(Remote(str(http.base_url), key=ann)) as remote:
                assert len(remote(serving.images(2, 0))) == 2
            with (
                closing(Remote(str(http.base_url))) as remote,
                pytest.raises(RuntimeError, match="401"),
            ):
                remote(serving.images(1, 0))
        assert state.asked() == {"ann": 11 if first else 22, "bob": 5}
        state.close()


def test_what_was_not_answered_does_not_count(tmp_path, path):
    state, service = State(tmp_path / "a", {}), serving.target(path)
    worker = Worker(service, state, quotas={"ann": 6})
    state.database.execute("PRAGMA query_only = ON")
    with pytest.raises(sqlite3.Error):
        worker.submit(serving.images(4, 0), ANN).result(60)
    state.database.execute("PRAGMA query_only = OFF")
    worker.submit(serving.images(4, 0), ANN).result(60)
    with pytest.raises(Spent):
        worker.submit(serving.images(3, 0), ANN)
    worker.submit(serving.images(2, 0), ANN).result(60)
    assert state.asked() == {"ann": 6}
    worker.stop()
    state.close()


def test_beside_greedy_streams_an_honest_client_is_answered(path):
    """16 streams of one client and one of another: it got 59 of 60 refusals."""
    worker, end = Worker(serving.target(path), limit=64), threading.Event()
    x, refused = serving.images(16, 5), []

    def stream():
        while not end.is_set():
            try:
                worker.submit(x, ANN).result(60)
            except Busy:
                refused.append(1)
                time.sleep(0.001)

    greedy = [threading.Thread(target=stream) for _ in range(16)]
    for thread in greedy:
        thread.start()
    while not refused:  # they have filled it
        time.sleep(0.001)
    served = [worker.submit(x[:1], BOB).result(60) for _ in range(60)]
    end.set()
    for thread in greedy:
        thread.join(60)
    worker.stop()
    assert len(served) == 60
    assert len(refused) > 10


# Connections


def half_open(bound, count, sent=b""):
    """Open connections that never send a whole head."""
    lines = []
    for _ in range(count):
        line = socket.create_connection(bound.getsockname()[:2], timeout=20)
        lines.append(line)
        with suppress(OSError):
            line.sendall(sent)
    return lines


def trickled(line, text):
    """Send a byte after the other."""
    for byte in text:
        line.sendall(bytes([byte]))
        time.sleep(0.02)


@pytest.mark.parametrize("sent", [b"", b"POST /predict HTTP/1.1\r\nHost: a\r\n"])
def test_half_open_connections_make_room_for_whole_requests(path, monkeypatch, sent):
    """1,050 of them left it deaf, at the 1,024 files that a process may open."""
    monkeypatch.setattr(server, "CONNECTIONS", 40)
    bound = server.listen("127.0.0.1", 0)
    api = endpoints.app(serving.target(path), (1, 8, 8), 10)
    with serving.within(api, bound) as http:
        lines = half_open(bound, 120, sent)
        for _ in range(3):
            answer = http.post(
                "/predict",
                content=serving.images(1, 0).numpy().tobytes(),
                headers=BYTES,
            )
            assert answer.status_code == 200
        closed = 0
        for line in lines:
            line.settimeout(0.01)
            with suppress(TimeoutError):
                try:
                    closed += line.recv(1) == b""
                except ConnectionError:
                    closed += 1
            line.close()
    assert closed >= 80


def test_a_head_must_come_within_the_patience_however_it_trickles(path):
    bound = server.listen("127.0.0.1", 0)
    api = endpoints.app(serving.target(path), (1, 8, 8), 10)
    running = server.made(api, 2.0)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        with socket.create_connection(bound.getsockname(), timeout=20) as line:
            start = time.perf_counter()
            with pytest.raises(OSError, match=r"reset|pipe|aborted"):
                trickled(line, b"POST /predict HTTP/1.1\r\nX: " + b"a" * 2000)
            assert time.perf_counter() - start < 30  # of 40
        with socket.create_connection(bound.getsockname(), timeout=20) as line:
            ask = b"GET /model HTTP/1.1\r\nHost: a\r\n\r\n"
            for _ in range(3):  # whoever asks in time is kept for longer than that
                line.sendall(ask)
                answer = b""
                while not answer.endswith(b"}") and (part := line.recv(4096)):
                    answer += part
                assert b"200 OK" in answer
                time.sleep(1.0)
    finally:
        running.should_exit = True
        thread.join(60)


# What lies about


def test_a_running_services_state_is_backed_up_whole(tmp_path, path, capsys):
    """Copied by its name alone it lacks what is still in the -wal file."""
    state, service = State(tmp_path / "a", {"of": "test"}), serving.target(path)
    for x in serving.images(90, 0).split(9):
        guarded(service, x)
        state.keep({"": service.defence}, [(NOBODY, x)])
    words = ["modelguard", "backup", str(tmp_path / "a"), str(tmp_path / "b")]
    assert cli.main(words) == 0
    (tmp_path / "named").write_bytes((tmp_path / "a").read_bytes())
    with closing(sqlite3.connect(tmp_path / "named")) as named:
        tables = named.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        rows = named.execute("SELECT count(*) FROM centroids") if tables else [(0,)]
        assert next(iter(rows))[0] < service.defence.count
    state.close()
    if os.name != "nt":
        assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600
    assert {p.name for p in tmp_path.iterdir() if p.name.startswith("b")} == {"b"}
    again = serving.target(path)
    copy = State(tmp_path / "b", {"of": "test"})
    copy.restore(again.defence)
    copy.close()
    assert again.defence.count == service.defence.count > 20
    capsys.readouterr()
    (tmp_path / "odd").write_bytes(b"no database" * 100)
    for source, said in [("a", "b exists"), ("none", "none is missing")]:
        assert cli.main(["modelguard", "backup", str(tmp_path / source), words[3]]) != 0
        assert said in capsys.readouterr().err
    odd = ["modelguard", "backup", str(tmp_path / "odd"), str(tmp_path / "c")]
    assert cli.main(odd) == 2
    assert "odd is no state of a service" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_the_log_knows_when_and_who(tmp_path, path):
    state = State(tmp_path / "a", {}, log=True)
    service, x = serving.target(path), serving.images(3, 0)
    start = time.time()
    worker = Worker(service, state)
    worker.submit(x[:2], Client("ann", "10.0.0.1")).result(60)
    worker.submit(x[2:], Client("", "10.0.0.2")).result(60)
    worker.stop()
    found = list(state.admitted((1, 8, 8)))
    assert [a.client for a in found] == [("ann", "10.0.0.1"), ("", "10.0.0.2")]
    assert torch.equal(torch.cat([a.images for a in found]), x)
    assert start <= found[0].time <= found[1].time <= time.time()
    state.close()


def test_a_state_of_the_first_version_is_read_on(tmp_path, path):
    service, x = serving.target(path), serving.images(60, 0)
    guarded(service, x)
    state = State(tmp_path / "new", {"of": "test"})
    state.keep({"": service.defence}, [(NOBODY, x)])
    with closing(sqlite3.connect(tmp_path / "old")) as old:
        old.execute("CREATE TABLE about (text TEXT)")
        old.execute('INSERT INTO about VALUES (\'{"of": "test"}\')')
        for table in ("centroids", "admissions"):
            own = "(place INTEGER PRIMARY KEY, data, crc INTEGER)"
            old.execute(f"CREATE TABLE {table} {own}")
        ask = "SELECT place - 1, data, crc FROM centroids"
        rows = state.database.execute(ask).fetchall()
        old.executemany("INSERT INTO centroids VALUES (?, ?, ?)", rows)
        old.commit()
    state.close()
    again, kept = serving.target(path), State(tmp_path / "old", {"of": "test"})
    Tenants(again.defence).restore(kept)
    assert again.defence.count == service.defence.count > 10
    assert torch.equal(guarded(again, x), guarded(service, x))
    kept.close()


def test_a_seed_comes_from_its_owners_file_and_shows_nowhere(
    tmp_path, path, monkeypatch, capfd
):
    ran = []
    monkeypatch.setattr(
        server, "run", lambda api, bound, **_: ran.append(bound.close())
    )
    secret, state = tmp_path / "seed", tmp_path / "state"
    secret.write_text("271828182\n")
    words = ["modelguard", "serve", str(path), "--defence", "noise", "--fixed", "--log"]
    words += [*WORDS, "--port", "0", "--state", str(state)]
    if os.name != "nt":
        os.chmod(secret, 0o644)
        assert cli.main([*words, "--seed-file", str(secret)]) == 2
        assert "must be its owner's alone (chmod 600)" in capfd.readouterr().err
        os.chmod(secret, 0o600)
    assert cli.main([*words, "--seed-file", str(secret)]) == 0
    said = capfd.readouterr()
    assert "271828182" not in said.out + said.err
    assert len(ran) == 1
    for file in tmp_path.glob("state*"):
        assert b"271828182" not in file.read_bytes()
    assert cli.main([*words, "--seed", "3"]) == 2  # it would stand in `ps`
    assert cli.main([*words, "--seed-file", str(secret), "--beta", "1"]) == 2
    secret.write_text("one")
    assert cli.main([*words, "--seed-file", str(secret)]) == 2
    said = capfd.readouterr().err
    assert "271828182" not in said
    assert "must hold a whole number" in said


def test_whoever_opens_it_to_a_network_says_so(
    tmp_path, path, held, monkeypatch, capfd
):
    ran = []
    monkeypatch.setattr(
        server, "run", lambda api, bound, **_: ran.append(bound.close())
    )
    monkeypatch.delenv(keys.VARIABLE, raising=False)
    words = [
        "modelguard",
        "serve",
        str(path),
        *WORDS,
        "--port",
        "0",
        "--host",
        "0.0.0.0",
    ]
    words += ["--state", str(tmp_path / "state")]
    assert cli.main(words) == 2
    assert "--host 0.0.0.0 needs --keys, or --without-keys" in capfd.readouterr().err
    assert cli.main([*words, "--apart"]) == 2
    assert "--apart needs --keys" in capfd.readouterr().err
    assert ran == []
    assert cli.main([*words, "--without-keys"]) == 0
    assert (
        cli.main([*words, "--keys", str(held[0]), "--state", str(tmp_path / "s")]) == 0
    )
    assert len(ran) == 2


def test_the_operators_side_ends_with_the_service(path):
    api = endpoints.app(serving.target(path), (1, 8, 8), 10)
    bound = server.listen("127.0.0.1", 0)
    with serving.within(api) as http:
        with server.beside(meters.app(api), bound):
            x = serving.images(2, 0).numpy().tobytes()
            assert http.post("/predict", content=x, headers=BYTES).status_code == 200
            url = server.address(bound)
            assert "lottolab_answered_images 2.0" in httpx.get(f"{url}/metrics").text
            assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")
