"""Note what is trained by the stages, in a run store of their own."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lottolab.nets import train


@contextmanager
def noted(store: Path) -> Iterator[list[dict]]:
    """List all trainings in the block, first to last, also those that fail.

    Each holds the state `before` and `after`, the `images` and the options of
    `train.fit`.
    """
    trainings, fit = [], train.fit

    def state(model):
        return {k: v.clone() for k, v in model.state_dict().items()}

    @functools.wraps(fit)  # so that the stages' fingerprints stay the same
    def spy(model, images, *given, **options):
        trainings.append({"before": state(model), "images": images, **options})
        fitted = fit(model, images, *given, **options)
        trainings[-1]["after"] = state(model)
        return fitted

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOTTOLAB_STORE", str(store))
        patch.setenv("LOTTOLAB_DEVICE", "cpu")
        patch.setattr(train, "fit", spy)
        yield trainings
