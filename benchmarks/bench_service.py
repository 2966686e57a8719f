"""Chapter 4's defences through the prediction service against the same in process.

The target of chapter 4 (laptop scale, seed 0; trained where the run store has it not)
answers single images behind each defence of Figure 6, in this process and in another
one over HTTP on loopback, in turns, after both have answered the thief's images. Each
image goes through the network alone, as in the service. One torch thread a process.
Prints the medians of milliseconds a query and their ratios: to no defence, and of HTTP
to in process. Then how many single images a second 8 clients side by side get.

    python benchmarks/bench_service.py [--queries 200] [--warm 1000]
"""

import argparse
import asyncio
import functools
import json
import time

import httpx
import numpy as np
import torch
from torch import Tensor

from lottolab.modelguard.commands import TIMED
from lottolab.modelguard.experiments import attackers, over_http, services
from lottolab.modelguard.service.worker import guarded
from lottolab.truth import results

BYTES = {"Content-Type": "application/octet-stream"}


def timed_defences(seed: int = 0) -> dict[str, dict]:
    """Return what the edition timed for Figure 6, as arguments of a stage, by arm."""
    stages = results.read_stages("modelguard", "laptop")
    every = stages.loc[stages["function"] == TIMED, "arguments"].map(json.loads)
    return {own["defence"]["name"]: own for own in every if own["seed"] == seed}


def made(own: dict, budget: int):
    """Return the thief's images, and the target behind the defence with its parts."""
    setting = {k: own[k] for k in own if k not in ("defence", "public", "budget")}
    images, _ = attackers.gathered(own["public"], budget, **setting)
    return images, *services.defended(own["defence"], **setting)


async def together(url: str, images: Tensor, clients: int = 8) -> float:
    """Return the images a second that clients get who ask side by side."""
    bodies = [image.numpy().tobytes() for image in images.split(1)]
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:

        async def ask(mine: list[bytes]) -> None:
            for body in mine:
                answer = await http.post("/predict", content=body, headers=BYTES)
                answer.raise_for_status()

        start = time.perf_counter()
        await asyncio.gather(*[ask(bodies[i::clients]) for i in range(clients)])
        return len(bodies) / (time.perf_counter() - start)


def main() -> None:
    """Print a line a defence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--warm", type=int, default=1000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    first = None
    print(
        "defence        in process        HTTP   × none: each  HTTP ÷ each   8 clients"
    )
    for name, own in timed_defences().items():
        images, asked, parts = made(own, given.warm)
        shape = tuple(images.shape[1:])
        with over_http.served(asked, shape, parts["classes"]) as remote:
            asks = [functools.partial(guarded, asked), remote]
            equal = torch.equal(*[ask(images) for ask in asks])
            took = over_http.in_turns(asks, images[: given.queries])
            ours = [1000 * float(np.median(seconds)) for seconds in took]
            rate = asyncio.run(together(remote.url, images))
        first = first or ours
        print(
            f"{name:13s} {ours[0]:8.2f} ms {ours[1]:8.2f} ms {ours[0] / first[0]:7.2f} "
            f"{ours[1] / first[1]:5.2f} {ours[1] / ours[0]:12.2f} {rate:9.0f}/s"
            f"{'' if equal else '  ANSWERS DIFFER'}",
            flush=True,
        )


if __name__ == "__main__":
    main()
