"""Loops that a rehearsal may shorten: whole unless somebody watches."""

import pytest

from lottolab.jobs import steps


class Two(steps.Watcher):
    """Let every loop take its first two items, and functions see one image."""

    def few(self, items, also, kind):
        return list(items)[:2]

    def by_row(self, function, model, images, *given):
        return function(model, images[:1], *given)


@steps.by_row
def doubled(model, images, by):
    """Return a row an image."""
    return [by * model(image) for image in images]


def test_everything_is_whole_while_nobody_watches():
    items = iter("abc")
    assert steps.few(items, also="a", kind="steps") is items
    assert steps.taken(7) == 7
    assert doubled(abs, [-1, 2], 2) == [2, 4]
    assert doubled.__doc__ == "Return a row an image."


def test_who_watches_shortens_until_the_block_ends_even_by_an_error():
    with steps.watched(Two()):
        assert steps.few("abc") == ["a", "b"]
        assert doubled(abs, [-1, 2], 2) == [2]
        with steps.watched(steps.Watcher()):
            assert steps.few("abc") == "abc"
        with pytest.raises(ZeroDivisionError), steps.watched(steps.Watcher()):
            steps.few(1 / 0)
        assert steps.few("abc") == ["a", "b"]
    assert steps.few("abc") == "abc"
    assert steps.watcher() is steps.NOBODY
