"""Ask where the pictures come from, before asking what a network answers to them.

A p-value for triggers is void if the pictures were chosen to make the network agree.
Those that `triggers.draw` draws could not be: labels and pictures come from one secret.
What an accuser changes by as much as one grey level is no longer what his secret gives.
"""

import torch

from lottolab.ownership import triggers as trigger
from lottolab.ownership.triggers import Triggers


def drawn(given: Triggers, secret: str) -> bool:
    """Are the pictures and their labels just those that the secret gives?

    An owner who brought pictures of his own (`triggers.from_folder`) fails, and needs
    a hash of them that is older than the network (`key.commit` binds text and key).
    Nor does this bound how many secrets were tried: who may have tried m pays m-fold.

    Raises:
        ValueError: the secret is not hexadecimal, or the pictures are not square.
    """
    count, channels, size, _ = given.images.shape
    shape = {"classes": given.classes, "channels": channels, "size": size}
    own = trigger.draw(count, **shape, secret=secret)
    same = own.images.shape == given.images.shape
    return bool(
        same
        and torch.equal(own.images, given.images.cpu())
        and torch.equal(own.labels, given.labels.cpu())
    )
