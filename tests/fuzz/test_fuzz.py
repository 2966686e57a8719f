"""Inputs that nobody planned for: 300 in `make test`, 10,000 in `make test-full`.

`fuzzing` says what counts as a finding. The 300 are the same on each machine; the
seed of the others is printed where they find something.
"""

import collections
import random

import fuzz_files
import pytest
from fuzz_cases import ENSEMBLES, MEMBERSHIP, MODELGUARD
from fuzz_ground import COMMANDS, GROUND, MIA_PRUNING, OWNERSHIP
from fuzzing import Finding, tried
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as some

AREAS = {
    "membership": MEMBERSHIP,
    "ensembles": ENSEMBLES,
    "modelguard": MODELGUARD,
    "mia_pruning": MIA_PRUNING,
    "ownership": OWNERSHIP,
    "ground": GROUND,
    "commands": COMMANDS,
}
SHORT = {"membership": 50, "ensembles": 30, "modelguard": 60, "mia_pruning": 30}
SHORT |= {"ownership": 20, "ground": 60, "commands": 20, "files": 30}  # in sum 300
TIMES = 10_000 / sum(SHORT.values())
MANY = {"deadline": None, "database": None, "suppress_health_check": [*HealthCheck]}
LARGE = some.integers(0, 2**32 - 1)


def campaign(area: str, count: int, **how) -> collections.Counter:
    """Try `count` inputs of an area; return how many were right, and refused."""
    counts: collections.Counter = collections.Counter()
    options = settings(max_examples=count, **MANY, **how)

    @options
    @given(some.sampled_from([*AREAS.get(area, "-")]), LARGE, LARGE, LARGE)
    def functions(name, number, place, bend):
        counts[tried(AREAS[area][name], number, place, bend)] += 1

    @options
    @given(some.sampled_from([*fuzz_files.FILES]), LARGE)
    def files(name, number):
        kind = fuzz_files.FILES[name]
        counts[fuzz_files.tried(kind, fuzz_files.sample(kind), number)] += 1

    test = functions if area in AREAS else files
    if not how:
        number = random.SystemRandom().randrange(2**32)
        print(f"{area}: seed {number}")
        test = seed(number)(test)
    test()
    print(f"{area}: {dict(counts)}")
    return counts


@pytest.mark.parametrize("area", SHORT)
def test_odd_inputs_are_answered_rightly_or_refused(area):
    assert campaign(area, SHORT[area], derandomize=True)["refused"]


@pytest.mark.long
@pytest.mark.parametrize("area", SHORT)
def test_ten_thousand_odd_inputs_are_answered_rightly_or_refused(area):
    counts = campaign(area, round(TIMES * SHORT[area]))
    assert min(counts["right"], counts["refused"]) > 0


@pytest.mark.parametrize("name", [n for area in AREAS.values() for n in area])
def test_good_arguments_are_answered_rightly(name):
    (case,) = [area[name] for area in AREAS.values() if name in area]
    assert tried(case, 0, 0, 0) == "right"


def test_what_is_wrong_or_crashes_is_found():
    from dataclasses import replace

    case = MEMBERSHIP["auc"]
    wrong = replace(case, call=lambda **given: 1.5)
    crashing = replace(case, call=lambda **given: [][1])
    writing = replace(case, call=lambda **given: given["scores"].zero_().sum())
    for odd, what in ((wrong, "wrong"), (crashing, "refused"), (writing, "changed")):
        with pytest.raises(Finding, match=what):
            tried(odd, 0, 0, 0)
