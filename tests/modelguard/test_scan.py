"""A scan of one class answers as ModelGuard-S does, bit by bit, and does not wait."""

import time

import pytest
import torch
from predictions import hard

from lottolab.modelguard import ModelGuardS, UnorderedQuantiser
from lottolab.modelguard.defences.scan import Scanned, quick

FLOATS = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_a_scan_answers_as_the_batch_does(dtype, classes):
    probs = torch.cat([hard(classes, seed) for seed in range(2)]).to(dtype)
    for epsilon in (0.0, 0.1, 1.0, 2.0):
        batch, scan = ModelGuardS(epsilon, classes), Scanned(epsilon, classes)
        assert torch.equal(scan.peek(probs), batch.peek(probs))
        assert torch.equal(scan(probs), batch(probs))
        assert scan.count == batch.count
        assert torch.equal(scan.peek(probs), batch.peek(probs))


def test_it_goes_on_with_what_another_has_opened_before_and_since():
    probs = hard(10, 0).float()
    both, alone = ModelGuardS(0.3, 10), ModelGuardS(0.3, 10)
    both(probs[::3])
    scan = quick(both)
    answers = [d(part) for part in probs.split(5) for d in (scan, both)]
    alone(probs[::3])
    assert torch.equal(torch.cat(answers[::2]), alone(probs))
    assert torch.equal(torch.cat(answers[1::2]), alone(probs))
    assert scan.count == both.count == alone.count


def test_all_else_is_answered_as_it_was():
    for defence in (None, UnorderedQuantiser(0.1, 3), Scanned(0.1, 3)):
        assert quick(defence) is defence


def test_one_query_does_not_wait_for_every_rank():
    """Of 1,000 centroids in one class; the peer is the batch's way, in turns."""
    generator = torch.Generator().manual_seed(0)
    rest = torch.rand(1000, 100, generator=generator) ** 8
    probs = torch.cat([torch.ones(1000, 1), rest / rest.sum(1, keepdim=True)], 1) / 2
    scan, batch, seconds = Scanned(0.01, 101), ModelGuardS(0.01, 101), {}
    scan(probs)
    batch.centroids = scan.centroids
    assert batch.count == 1000
    for row in probs[-9:].split(1):
        for defence in (batch, scan):
            start = time.process_time()
            defence.peek(row)
            seconds.setdefault(defence, []).append(time.process_time() - start)
    each = {defence: sorted(found)[4] for defence, found in seconds.items()}
    assert each[scan] < each[batch] / 5
