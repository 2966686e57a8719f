"""Keys and networks that somebody has changed on purpose, and what is right of them.

A claimant hands over a key, a suspect a network. A key that is not the owner's claims
nothing, on any network. A network carries the signature if the kernels of a layer
agree with the owner's code, counted here one by one.
"""

import json
from collections.abc import Callable
from pathlib import Path

import fuzz_files
import numpy as np
import torch
import typer
from fuzzing import JUNK, NUMBERS, TEXTS, Finding
from safetensors.torch import save_file

from lottolab.ownership import SignatureKey, commands
from lottolab.ownership.signatures import embedding, networks, qr, signature

CLAIM, LAYER = "Ada", "b.weight"
BETWEEN = (0.62, 0.88)  # shares of modules that may be accepted or not
READ = ("row", "column", "version", "ecc", "mask", "secret", "digest", "shape")


def sparse(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a.weight": (24, 3, 3, 3), LAYER: (28, 24, 3, 3), "c.weight": (5, 28)}
    drawn = {n: torch.randn(shape, generator=generator) for n, shape in shapes.items()}
    drawn[LAYER] *= torch.rand(shapes[LAYER], generator=generator) < 0.15
    return drawn


def prepare(folder: Path) -> None:
    """Write an owner's key and signed network, and a stranger's network."""
    state, own = sparse(0), signature.public(0)
    masks, key = signature.embed({LAYER: state[LAYER] != 0}, CLAIM, ecc="L", secret=own)
    state[LAYER] = embedding.fill(state[LAYER], masks[LAYER], 0)
    key.save(folder / "key")
    save_file(state, folder / "signed")
    save_file(sparse(1), folder / "stranger")


def odd_key(folder: Path, random: np.random.Generator) -> None:
    """Write a key whose fields, or whose bytes, were changed."""
    text = (folder / "key").read_bytes()
    if random.random() < 0.3:
        (folder / "odd").write_bytes(fuzz_files.broken(text, random))
        return
    values = json.loads(text)
    for _ in range(int(random.integers(1, 4))):
        name = str(random.choice(list(values)))
        values[name] = field(values, name, random)
    if random.random() < 0.5:  # as a claimant who knows what is computed
        values["windows"] = windows(values)
    (folder / "odd").write_text(json.dumps(values, default=repr))


def field(values: dict, name: str, random: np.random.Generator):
    """Return another value of a field: one that could be right, or none."""
    could: dict[str, Callable] = {
        "row": lambda: int(random.integers(-1, 9)),
        "column": lambda: int(random.integers(-1, 9)),
        "version": lambda: int(random.integers(0, 4)),
        "ecc": lambda: str(random.choice([*"LMQH"])),
        "mask": lambda: int(random.integers(-1, 9)),
        "secret": lambda: random.bytes(int(random.integers(8, 40))).hex(),
        "threshold": lambda: float(random.uniform(-0.1, 1.1)),
        "shape": lambda: [int(n) for n in random.integers(20, 33, size=2)],
        "digest": lambda: random.bytes(32).hex(),
        "windows": lambda: float(10.0 ** -random.integers(300)),
        "layer": lambda: str(random.choice(["a.weight", "c.weight", "", "b"])),
    }
    if random.random() < 0.6:
        return could[name]()
    junk = [*JUNK, *NUMBERS, *TEXTS, list(values), 10**400]
    junk = [j for j in junk if isinstance(j, str | int | float | list | dict | None)]
    return junk[int(random.integers(len(junk)))]


def windows(values: dict):
    try:
        side = 17 + 4 * values["version"]
        return (values["shape"][0] - side + 1) * (values["shape"][1] - side + 1)
    except (TypeError, IndexError, KeyError):
        return 1


def odd_network(folder: Path, whose: str, random: np.random.Generator) -> None:
    """Write a network whose tensors, names or bytes were changed."""
    path = folder / "odd"
    if random.random() < 0.3:
        path.write_bytes(fuzz_files.broken((folder / whose).read_bytes(), random))
        return
    state = networks.read(folder / whose)
    w, seed = state[LAYER], int(random.integers(2**31))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(w.shape, generator=generator)
    share = torch.rand(w.shape, generator=generator)
    amount = float(random.random())
    kinds = [torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool]
    kind = kinds[int(random.integers(len(kinds)))]
    ways: list[Callable] = [
        lambda: w * (share > amount),
        lambda: torch.where(share < amount / 4, noise, w),
        lambda: w + noise * 10.0 ** -random.integers(1, 9),
        lambda: w[torch.randperm(len(w), generator=generator)],
        lambda: w.transpose(0, 1).contiguous(),
        lambda: w * 10.0 ** float(random.integers(-30, 30)),
        lambda: torch.where(share < 0.001, float("nan"), w),
        lambda: (w * 100).to(kind),
        lambda: w.flatten(2).sum(2),
        lambda: w[:-1].contiguous(),
        lambda: w.flatten(),
        lambda: w * 0,
        lambda: w.flip(0).contiguous(),
        lambda: w,
    ]
    state[LAYER] = ways[int(random.integers(len(ways)))]()
    if random.random() < 0.3:
        state["other"], state[LAYER] = state[LAYER], noise
    if random.random() < 0.2:
        state = {f"module.{n}": t for n, t in state.items()}
    save_file(state, path)


def tried(kind: str, folder: Path, seed: int, capsys) -> str:
    """Change a file of a kind, claim, and say what came of it; raise Finding."""
    random = np.random.default_rng(seed)
    whose = str(random.choice(["signed", "stranger"]))
    if kind == "key":
        odd_key(folder, random)
        files = folder / whose, folder / "odd"
    else:
        odd_network(folder, whose, random)
        files = folder / "odd", folder / "key"
    claim = CLAIM if random.random() < 0.7 else None
    capsys.readouterr()
    try:  # without the command line, which takes ten times as long
        commands.verify(*files, claim)
    except ValueError as error:
        if len(str(error).splitlines()) != 1:
            raise Finding(f"{kind} {seed}: refused in lines: {error!r}") from error
        return "refused"
    except typer.Exit as end:
        accepted = {0: True, 1: False}[end.exit_code]
    except Exception as error:
        raise Finding(f"{kind} {seed}: {error!r}") from error
    right = {"key": key_is_right, "network": network_is_right}[kind]
    if not right(folder, whose, accepted, claim is not None):
        told = capsys.readouterr().out
        raise Finding(f"{kind} {seed}: wrongly judged: {told}")
    return "accepted" if accepted else "not accepted"


def key_is_right(folder: Path, whose: str, accepted: bool, claimed: bool) -> bool:
    """Only the owner's key claims, and the owner's network alone."""
    own, odd = (SignatureKey.load(folder / name) for name in ("key", "odd"))
    read = READ if claimed else READ[:-2]  # no hash is needed to read
    same = all(getattr(own, name) == getattr(odd, name) for name in read)
    if accepted:
        return whose == "signed" and same
    return not (whose == "signed" and same and claimed and odd.threshold < 0.01)


def network_is_right(folder: Path, whose: str, accepted: bool, claimed: bool) -> bool:
    """Count what agrees in each layer of the shape, kernel by kernel."""
    key, best = SignatureKey.load(folder / "key"), 0.0
    code = qr.encode(CLAIM, key.ecc, version=key.version, mask=key.mask)[0]
    code = signature.covered(code, key)
    for weights in networks.read(folder / "odd").values():
        if tuple(weights.shape[:2]) != key.shape or not weights.isfinite().all():
            continue
        sizes = weights.double().abs().reshape(*key.shape, -1).amax(2)
        sizes = (sizes / sizes.amax(1, keepdim=True)).nan_to_num().numpy()[key.window]
        places = [tuple(p) for p in qr.places(key.version)]
        middle = np.median([sizes[p] for p in places])
        for limit in (key.threshold, middle):
            agree = sum((sizes[p] > limit) == code[p] for p in places)
            best = max(best, agree / len(places))
    if accepted:
        return whose == "signed" and best > BETWEEN[0]
    return best < BETWEEN[1] or not claimed
