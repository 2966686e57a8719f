"""Keep a network in one safetensors file: to build it anew, or to go on training it.

What `save` writes says how to build the network: the header of a safetensors file has
room for texts, and the one called `lottolab` is JSON: `network`, the arguments of
`models.build` in KEYS (`size`: of images, a side), and `mean` and `std`, a value a
channel, of the training images (pixels in [0, 1]).

`save_training` keeps what `train.fit` goes on from where it was killed.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from lottolab.checks import require
from lottolab.nets import models
from lottolab.runs import files

KEYS = ("name", "channels", "classes", "width", "stem", "size")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network as it was read.

    network: what it was built from, see above. mean_std: float32 [channels] each.
    """

    model: nn.Module
    mean_std: tuple[Tensor, Tensor]
    network: dict

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the shape of an image, C×H×W."""
        size = self.network["size"]
        return self.network["channels"], size, size


def save(
    model: nn.Module,
    path: str | Path,
    *,
    network: dict,
    mean_std: tuple[Tensor, Tensor],
) -> None:
    """Write a network with its description; the file appears complete or not at all.

    Args:
        network: what `models.build` made it of, with `size`, pixels a side.
        mean_std: of the training images, as `data.normalisation` gives them.

    Raises:
        ValueError: the description is not that of the network.
    """
    mean, std = (part.flatten().tolist() for part in mean_std)
    text = json.dumps({"network": network, "mean": mean, "std": std})
    state = model.state_dict()
    _described(path, {"lottolab": text})[0].load_state_dict(state, assign=True)
    write(state, path, {"lottolab": text})


def load(path: str | Path) -> Checkpoint:
    """Build the network of a file that `save` wrote, on the CPU.

    Nothing is allocated but what the file holds, whatever its header says.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not what `save` writes; a pickle is never opened.
    """
    state, texts = models.load_state(path), header(path)
    model, mean_std, network = _described(path, texts)
    wanted = {k: (v.shape, v.dtype) for k, v in model.state_dict().items()}
    odd = sorted(wanted.keys() ^ state.keys())
    odd = odd or [k for k, v in state.items() if wanted[k] != (v.shape, v.dtype)]
    require(not odd, f"{path} must hold the tensors of its {network['name']}", odd[:3])
    odd = [name for name, value in state.items() if not value.isfinite().all()]
    require(not odd, f"{path} must be finite", f"NaN or inf in {odd[:3]}")
    # Cloned, because tensors of a mapped file lie where they lie.
    model.load_state_dict({k: v.clone() for k, v in state.items()}, assign=True)
    return Checkpoint(model.eval(), mean_std, network)


def header(path: str | Path) -> dict[str, str]:
    """Return the texts in the header of a file that `models.load_state` reads."""
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def write(state: dict[str, Tensor], path: str | Path, texts: dict[str, str]) -> None:
    """Write tensors and the header's texts; they appear complete or not at all."""
    files.tensors(state, path, texts)


def save_training(
    folder: Path, model, optimiser, rows: list[dict], rewind: dict
) -> None:
    """Write model, optimiser, history and rewind state as one file, in one step."""
    tensors = {f"model/{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"rewind/{k}": v for k, v in rewind.items()}
    for place, state in optimiser.state_dict()["state"].items():
        values = {k: torch.as_tensor(v) for k, v in state.items() if v is not None}
        tensors |= {f"optimiser/{place}/{k}": v for k, v in values.items()}
    rows = {"rows": json.dumps(rows)}
    files.tensors(tensors, folder / "checkpoint.safetensors", rows)


def resume_training(folder: Path | None, model, optimiser) -> tuple[list[dict], dict]:
    """Load the checkpoint, if there is one, and return its history and rewind state."""
    path = folder / "checkpoint.safetensors" if folder else None
    if not path or not path.exists():
        return [], {}
    parts: dict[str, dict] = {"model": {}, "rewind": {}, "optimiser": {}}
    with safe_open(path, "pt") as file:
        rows = json.loads(file.metadata()["rows"])
        for key in file.keys():  # noqa: SIM118 - not a dict
            part, _, name = key.partition("/")
            parts[part][name] = file.get_tensor(key)
    model.load_state_dict(parts["model"])
    state: dict[int, dict] = {}
    for name, value in parts["optimiser"].items():
        place, key = name.split("/")
        state.setdefault(int(place), {})[key] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    return rows, parts["rewind"]


def _described(path: str | Path, texts: dict[str, str]) -> tuple:
    """Return model without memory for its weights, mean and std, and description."""
    what = f"{path} does not say how to build its network"
    require(
        "lottolab" in texts,
        f"{what}: write it by lottolab.nets.checkpoint.save",
        "none",
    )
    try:
        told = json.loads(texts["lottolab"])
        network, mean, std = told["network"], told["mean"], told["std"]
        require(set(network) == set(KEYS), f"network must have {KEYS}", list(network))
        with torch.device("meta"):
            model = models.build(**network)
        scale = tuple(torch.tensor(part, dtype=torch.float32) for part in (mean, std))
        right = all(part.shape == (network["channels"],) for part in scale)
        right = right and bool((scale[1] > 0).all())
        ours = "mean and std must be numbers, one a channel, and std > 0"
        require(right, ours, f"{mean} and {std}")
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{what}: {str(error).splitlines()[0]}") from error
    return model, scale, network
