"""Whose turn it is among those who wait, and who must leave."""

import threading
from concurrent.futures import Future

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from lottolab.modelguard.service.keys import Client
from lottolab.modelguard.service.line import Busy, Line, Request


def request(name, size=1):
    return Request(Client(name, ""), torch.zeros(size, 1, 1, 1), Future())


def names(batch):
    return "".join(r.client.key for r in batch)


def test_a_client_with_one_request_is_served_before_the_rest_of_a_greedy_one():
    line = Line(100)
    for name in "aaaaaabcb":
        line.put(request(name))
    assert names(line.take(5)) == "abcab"
    assert names(line.take(2)) == "aa"
    line.put(request("d"))
    assert names(line.take(100)) in ("daa", "ada")
    assert line.count == 10  # they are not answered yet
    line.done(10)
    assert line.count == 0


def test_turns_go_by_images_not_by_requests():
    line = Line(1000)
    for _ in range(10):
        line.put(request("a", 20))
    for _ in range(40):
        line.put(request("b", 5))
    batch = line.take(100)
    shares = {n: sum(len(r.images) for r in batch if r.client.key == n) for n in "ab"}
    assert abs(shares["a"] - shares["b"]) <= 20


def test_the_greediest_makes_room_with_its_last_request():
    line, greedy = Line(10), [request("a", 2) for _ in range(5)]
    for one in greedy:
        line.put(one)
    with pytest.raises(Busy):
        line.put(request("a"))  # whoever has most makes room for nobody of his own
    line.put(request("b", 3))
    left = [one.future for one in greedy if one.future.done()]
    assert left == [greedy[4].future, greedy[3].future][::-1]
    assert all(isinstance(future.exception(), Busy) for future in left)
    assert line.count == 9
    with pytest.raises(Busy):
        line.put(request("b", 5))  # he would have more than the other
    assert names(line.take(100)) == "abaa"


def test_who_is_being_answered_keeps_his_room():
    line = Line(4)
    line.put(request("a", 4))
    taken = line.take(4)
    with pytest.raises(Busy):
        line.put(request("b"))
    assert not taken[0].future.done()
    line.done(4)
    line.put(request("b"))


def test_a_closed_line_gives_what_waits_and_then_nothing():
    line, found = Line(4), []
    thread = threading.Thread(target=lambda: found.append(line.take(4)))
    thread.start()  # it waits
    line.close()
    thread.join(60)
    assert found == [[]]
    with pytest.raises(Busy):
        line.put(request("a"))


@given(
    some.lists(
        some.tuples(some.sampled_from("abcd"), some.integers(1, 6)), max_size=60
    ),
    some.integers(6, 30),
)
def test_room_is_never_overdrawn_and_nobody_is_lost(asks, limit):
    line, every, refused = Line(limit), [], 0
    for place, (name, size) in enumerate(asks):
        one = request(name, size)
        try:
            line.put(one)
            every.append(one)
        except Busy:
            refused += 1
        assert 0 <= line.count <= limit
        if place % 7 == 6:
            batch = line.take(8)
            for r in batch:
                r.future.set_result(None)
            line.done(sum(len(r.images) for r in batch))
    line.close()
    while batch := line.take(8):
        for r in batch:
            r.future.set_result(None)
        line.done(sum(len(r.images) for r in batch))
    assert line.count == 0
    assert len(every) + refused == len(asks)
    assert all(one.future.done() for one in every)
