"""Make the capture-the-flag: a signed ticket, a defended service, a robust ensemble."""

import numpy as np
import torch

from lottolab.labs import small

HIDDEN, ACCOUNTS, EPSILON, CHANGE = 48, 4, 0.5, 0.06
TRAINED, SHOWN, ASKED = 800, 200, 600
WINDOW = (16, 14)


def prepare(variant: int) -> tuple[dict, dict]:
    """Return what students get and what only the teacher knows."""
    random = torch.Generator().manual_seed(variant)
    owner, shown, fresh, asked, puzzle = small.clothes(
        [TRAINED, SHOWN, SHOWN, ASKED, SHOWN], random
    )
    given, kept = _ticket(owner, random)
    answers, orders, labels = _service(owner, asked[1], puzzle[1], random)
    given |= {"queries": asked[1], "answers": answers, "orders": orders}
    given |= {"puzzle": puzzle[1], "images": shown[1], "labels": shown[2]}
    keep = torch.rand(6, 196, 1, generator=random) < 0.3
    rows = torch.rand(6, TRAINED, generator=random).argsort(1)[:, : TRAINED // 2]
    how = {"hidden": HIDDEN, "steps": 60, "epsilon": CHANGE / 2, "keep": keep}
    team = small.train(*owner[1:], rows, random, **how)
    given |= {f"team{i}": w for i, w in enumerate(team)}
    kept |= {"fresh": (fresh[1][:100] * 255).round().byte(), "stolen": labels.byte()}
    return tuple({k: np.asarray(v) for k, v in part.items()} for part in (given, kept))


def _ticket(owner, random) -> tuple[dict, dict]:
    """Train a sparse network whose first layer holds 224 secret bits, and copies."""
    keep = torch.rand(4, 196, HIDDEN, generator=random) < 0.5
    bits = torch.rand(WINDOW, generator=random) < 0.5
    corner = [
        int(torch.randint(n - s, (), generator=random))
        for n, s in zip((196, HIDDEN), WINDOW, strict=True)
    ]
    window = tuple(slice(c, c + s) for c, s in zip(corner, WINDOW, strict=True))
    keep[0][window] = bits
    rows = torch.arange(TRAINED).repeat(4, 1)
    weights = small.train(*owner[1:], rows, random, hidden=HIDDEN, steps=60, keep=keep)
    ticket = {f"ticket{i}": w[0] for i, w in enumerate(weights)}
    order = torch.randperm(HIDDEN, generator=random)
    first = weights[0][0][:, order]
    noise = torch.randn(first.shape, generator=random) * first.std() / 2
    suspects = weights[0].roll(int(torch.randint(4, (), generator=random)), 0).clone()
    number = next(i for i in range(4) if torch.equal(suspects[i], weights[0][0]))
    suspects[number] = first + noise * (first != 0)
    kept = {"bits": bits, "corner": corner, "order": order.byte(), "number": number}
    return ticket | {"suspects": suspects}, kept


def _service(owner, queries, puzzle, random) -> tuple:
    """Answer the queries through ModelGuard-S, in each account in another order."""
    rows = torch.arange(TRAINED)[None]
    target = small.train(*owner[1:], rows, random, hidden=HIDDEN, steps=60)
    predictions = small.ask(target, queries)[0].softmax(1).double()
    orders = torch.rand(ACCOUNTS, len(queries), generator=random).argsort(1)
    answers = torch.empty(ACCOUNTS, *predictions.shape, dtype=torch.float64)
    for account, order in enumerate(orders):
        centroids = predictions[:0]
        for i in order.tolist():
            y = predictions[i]
            hit = (centroids - y).abs().sum(1) <= EPSILON
            hit &= centroids.argmax(1) == y.argmax()
            if not hit.any():
                centroids = torch.cat([centroids, y[None]])
            answers[account, i] = centroids[hit.int().argmax()] if hit.any() else y
    return answers, orders, small.ask(target, puzzle)[0].argmax(1)
