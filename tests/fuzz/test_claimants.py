"""Changed keys and networks: 300 in `make test`, 10,000 in `make test-full`."""

import collections
import random

import fuzz_claims
import pytest

pytestmark = pytest.mark.usefixtures("on_one_thread")


def campaign(kind, count, first, folder, capsys):
    """Try `count` files of a kind; return how often what came of it."""
    fuzz_claims.prepare(folder)
    return collections.Counter(
        fuzz_claims.tried(kind, folder, first + number, capsys)
        for number in range(count)
    )


@pytest.mark.parametrize("kind", ["key", "network"])
def test_no_odd_file_claims_what_is_not_its_own(kind, tmp_path, capsys):
    counts = campaign(kind, 150, 0, tmp_path, capsys)
    assert min(counts[w] for w in ("accepted", "not accepted", "refused")) > 0


@pytest.mark.long
@pytest.mark.parametrize("kind", ["key", "network"])
def test_of_ten_thousand_odd_files_none_claims_what_is_not_its_own(
    kind, tmp_path, capsys
):
    first = random.SystemRandom().randrange(2**32)
    with capsys.disabled():
        print(f"{kind}: from seed {first} on")
    counts = campaign(kind, 5000, first, tmp_path, capsys)
    assert min(counts[w] for w in ("accepted", "not accepted", "refused")) > 0


def test_an_acceptance_that_is_wrong_is_found(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fuzz_claims.signature, "ACCEPT", 2.0)
    with pytest.raises(fuzz_claims.Finding, match="wrongly judged"):
        campaign("network", 30, 0, tmp_path, capsys)
