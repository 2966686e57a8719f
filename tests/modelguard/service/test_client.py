"""The client of a prediction service, against servers that answer otherwise."""

import json
import socket
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
import torch

from lottolab.modelguard.service import client
from lottolab.modelguard.service.client import Remote

SIZES = {"channels": 1, "height": 2, "width": 2, "classes": 3, "most_images": 4}
ROWS = np.arange(6, dtype="<f4")
IMAGES = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)


def answer(code, body=b"", *headers):
    """Return the bytes of a whole answer, after which the connection ends."""
    lines = [f"HTTP/1.1 {code} X", f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


MODEL = answer(200, json.dumps(SIZES).encode())
RIGHT = answer(200, ROWS.tobytes())


@contextmanager
def canned(*answers):
    """Give each connection the next of these answers; yield the address."""

    def serve():
        for content in answers:
            line, _ = listening.accept()
            with line:
                line.recv(65536)
                line.sendall(content)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield "http://127.0.0.1:{}".format(*listening.getsockname()[1:])
        thread.join(10)
        assert not thread.is_alive()  # each was asked for


def date(**later):
    when = datetime.now(UTC).replace(microsecond=0) + timedelta(**later)
    return format_datetime(when, usegmt=True)


def retry(told):
    return answer(503, b"", f"Retry-After: {told}")


@pytest.mark.parametrize(
    ("told", "least", "most"),
    [
        (lambda: "0", 0.1, 0.1),
        (lambda: "7", 7, 7),
        (lambda: date(seconds=9), 4, 9),
        (lambda: date(days=-4000), 0.1, 0.1),
        (lambda: "", 1, 1),
        (lambda: "soon", 1, 1),
        (lambda: "-3", 1, 1),
        (lambda: "nan", 1, 1),
        (lambda: "Sun, 99 Nov 1994 08:49:37 GMT", 1, 1),
    ],
)
def test_a_busy_service_is_asked_again_when_it_says(monkeypatch, told, least, most):
    waited = []
    monkeypatch.setattr(client.time, "sleep", waited.append)
    with canned(MODEL, retry(told()), RIGHT) as url:
        assert torch.equal(Remote(url)(IMAGES).flatten(), torch.arange(6.0))
    assert len(waited) == 1
    assert least <= waited[0] <= most


def test_every_form_of_a_date_that_http_has_is_read():
    """RFC 9110, section 5.6.7: an IMF-fixdate and two that are obsolete."""
    until = datetime.now(UTC) + timedelta(hours=2)
    for form in (
        "%a, %d %b %Y %H:%M:%S GMT",
        "%A, %d-%b-%y %H:%M:%S GMT",
        "%a %b %e %H:%M:%S %Y",
    ):
        assert client._wait(until.strftime(form)) == pytest.approx(7200, abs=2)


@pytest.mark.parametrize("told", ["3600", "9" * 400, "DATE"])
def test_a_wait_beyond_the_patience_is_not_begun(monkeypatch, told):
    told, waited = date(hours=1) if told == "DATE" else told, []
    monkeypatch.setattr(client.time, "sleep", waited.append)
    with canned(MODEL, retry(told)) as url:
        remote = Remote(url, patience=5)
        with pytest.raises(RuntimeError, match="/predict: 503"):
            remote(IMAGES)
    assert waited == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "does not answer: Server disconnected"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not answer"),
        (answer(200, b"<html>hello</html>"), "is no prediction service"),
        (answer(200, b"[]"), "is no prediction service"),
        (answer(200, b"\xff\xfe"), "is no prediction service"),
        (answer(200, b'{"channels": 1}'), "is no prediction service: 'height'"),
        (
            answer(200, json.dumps(SIZES | {"classes": "3"}).encode()),
            "classes must be a whole number >= 1, got '3'",
        ),
        (answer(200, b"<html>", "Content-Encoding: gzip"), "does not answer"),
        (answer(302, b"", "Location: /login"), "/model: 302"),
        (answer(404, b"<html>nothing here"), "/model: 404 .*nothing here"),
        (answer(200, b"x", "Content-Length: 9"), "does not answer"),
    ],
)
def test_what_is_no_service_is_one_line(content, said):
    with canned(content) as url, pytest.raises(RuntimeError, match=said) as caught:
        Remote(url)
    assert url in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (RIGHT[:-1], "does not answer"),
        (answer(200, ROWS[:5].tobytes()), "answers 2 images by 20 bytes"),
        (answer(200, b"<html>hello"), "answers 2 images by 11 bytes"),
        (answer(500, b"no"), r"/predict: 500 \['no'\]"),
        (b"", "does not answer"),
    ],
)
def test_an_answer_that_is_none_is_one_line_and_not_counted(content, said):
    with canned(MODEL, content) as url:
        remote = Remote(url)
        with pytest.raises(RuntimeError, match=said):
            remote(IMAGES)
    assert remote.asked == 0


@pytest.mark.parametrize("url", ["::1:8000", "http://[::1", "http://\x00", None])
def test_what_is_no_address_is_one_line(url):
    with pytest.raises(ValueError, match="url must be http://host:port, got "):
        Remote(url)


@pytest.mark.parametrize("url", ["localhost:1", "ftp://x", f"http://{'a' * 70}.de"])
def test_what_cannot_be_reached_is_one_line(url):
    with pytest.raises(RuntimeError, match=f"{url} does not answer"):
        Remote(url)
