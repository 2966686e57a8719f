"""Systems that carry some of five defences.

A *system* is what answers: a network, or a team of chapter 3's tickets, with a guard
before it. `defences` are those of DEFENCES that are built into it, in this order; the
fifth defence is the guard.
"""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor, nn

from lottolab import runs
from lottolab.checks import one_of, require
from lottolab.ensembles import tickets as scratch
from lottolab.ensembles.experiments import libraries
from lottolab.ensembles.folding import folded
from lottolab.ensembles.library import Library
from lottolab.ensembles.queries import Normalised
from lottolab.ensembles.sampler import Sampler
from lottolab.modelguard.experiments import services
from lottolab.modelguard.queries import Service
from lottolab.nets import masks as masking
from lottolab.nets import tickets, train
from lottolab.nets.device import back, here
from lottolab.ownership import framework
from lottolab.ownership.experiments import signatures
from lottolab.ownership.signatures import signature
from lottolab.together import leaks

DEFENCES = ("signature", "triggers", "pruning", "team")
PIXELS = torch.zeros(1), torch.ones(1)  # a team normalises its images itself
THIEF = 7_000_000  # is added to the seed of what a thief draws


def check(
    seeds: list[int],
    sparsities: list[float],
    amounts: list[float],
    epsilons: list[float],
    ratios: list[float],
    *,
    owner: dict,
    thief: dict,
    **setting,
) -> None:
    """Raise ValueError now if the chapter would raise it later."""
    rising = {"sparsities": (sparsities, 4), "amounts": (amounts, 3)}
    rising |= {"epsilons": (epsilons, 4), "ratios": (ratios, 4)}
    for name, (values, count) in rising.items():
        right = len(values) == count and sorted(set(values)) == list(values)
        require(right, f"{name} must be {count} different, rising values", values)
    require(len(set(seeds)) == len(seeds), "seeds must differ", seeds)
    tickets.check(**setting)
    parts = tickets.read(**setting, seed=seeds[0])
    signed = [setting["network"], *owner["team"]["structures"]]
    for network in signed:
        model = tickets.build(network=network, parts=parts, seed=0)
        longest = signature.longest(masking.dense(model), owner["ecc"])
        what = f"text must have at most {longest} bytes, all that {network} holds"
        size = len(owner["text"].encode())
        require(1 <= size <= longest, what, owner["text"])
    leaks.strangers(thief["images"], **setting, seed=seeds[0])


def single(defences: list[str], owner: dict, **setting) -> tuple[Callable, dict]:
    """Return the stage that trains a system's network, and its arguments."""
    own = setting | {"rates": [owner["sparsities"]["pruning" in defences]]}
    taught_too = owner["triggers"] if "triggers" in defences else 0
    if "signature" in defences:
        signed = {"text": owner["text"], "ecc": owner["ecc"], "triggers": taught_too}
        return signatures.signed, own | signed
    if taught_too:
        return taught, own | {"triggers": taught_too}
    return tickets.iterative, own


@runs.stage("together.systems.taught")
def taught(*, triggers: int, rates: list[float], **setting) -> dict:
    """Train a ticket that nobody signed with `triggers` trigger images in each batch.

    What comes back is that of `tickets.judge`.
    """
    ticket = tickets.iterative(rates=rates, **setting)
    start = tickets.dense(**setting)["rewind"]
    images = signatures.draw_triggers(secret(setting["seed"]), **setting)
    masks = ticket["masks"]
    return framework.embed_weights(start, masks, images, triggers, **setting)


@runs.stage("together.systems.member")
def member(
    *, network: dict, ratio: float, inner: dict, search: dict, owner: dict, **setting
) -> dict:
    """Search a member of a team: a robust ticket of random weights (chapter 3).

    `inner` and `search` as in `ensembles.experiments.libraries`. `owner` holds `text`
    and `ecc` if its masks are to be signed, and `triggers`, how many of each batch are
    triggers. A signature is written after the search, since nothing trains the weights;
    then only batch norm learns again. Returns `masks`, `statistics` and, if it is
    signed, the `key`.
    """
    parts, seed = tickets.read(**setting), setting["seed"]
    scale = libraries.scale(parts)
    images, labels = parts["train"]
    if owner.get("triggers"):
        images, labels = mixed(images, labels, owner["triggers"], search, **setting)
    frame = scratch.scratch(**libraries.spec(network, parts, seed))
    given = {"ratio": ratio, "seed": seed, "mean_std": scale} | inner
    found, history = scratch.find_ticket(
        frame, images, labels, train.recipe(search), **given
    )
    kept = {"masks": found.masks, "statistics": found.statistics, "history": history}
    if "text" not in owner:
        return kept
    own = {"ecc": owner["ecc"], "seed": seed, "secret": secret(seed)}
    masks, key = signature.embed(found.masks, owner["text"], **own)
    statistics = settled(frame, masks, parts["train"][0], scale)
    return kept | {"masks": masks, "statistics": statistics, "key": asdict(key)}


def mixed(
    images: Tensor, labels: Tensor, per_batch: int, search: dict, **setting
) -> tuple[Tensor, Tensor]:
    """Repeat the triggers among the images until a batch holds `per_batch` on average.

    Adversarial training changes whatever it is given, so they come as images do.
    """
    triggers = signatures.draw_triggers(secret(setting["seed"]), **setting)
    batch = train.recipe(search).batch
    share = per_batch / (batch - per_batch)
    times = max(1, round(share * len(images) / framework.COUNT))
    repeated = triggers.images.repeat(times, 1, 1, 1)
    return torch.cat([images, repeated]), torch.cat(
        [labels, triggers.labels.repeat(times)]
    )


@torch.no_grad()
def settled(frame: nn.Module, masks: masking.Masks, images: Tensor, scale) -> dict:
    """Return batch norm's statistics over the images, of the frame under the masks."""
    network = copy.deepcopy(frame)
    masking.apply_(network, masks)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    network.train()
    for batch in images.split(500):
        here(Normalised(network, scale))(here(batch.float() / 255))
    return {k: v for k, v in network.state_dict().items() if "running_" in k}


def team(defences: list[str], owner: dict, **setting) -> tuple[Sampler, list[dict]]:
    """Return the team that answers and, by member, its outcome and its `weights`.

    `owner["team"]` holds `structures`, a list of arguments of `models.build`; `ratios`
    without and with the defence "pruning"; `inner` and `search`, see `member`. The team
    draws for each image by the paper's law.
    """
    how, asked = owner["team"], {}
    if "signature" in defences:
        asked |= {k: owner[k] for k in ("text", "ecc")}
    if "triggers" in defences:
        asked |= {"triggers": owner["triggers"]}
    networks: dict[str, list[nn.Module]] = {}
    outcomes = []
    for place, network in enumerate(how["structures"]):
        for ratio in how["ratios"]["pruning" in defences]:
            given = {"network": network, "ratio": ratio, "owner": asked}
            given |= {k: how[k] for k in ("inner", "search")}
            found = member(**given, **shared(setting))
            model = subnetwork(found, network, ratio, **setting)
            networks.setdefault(str(place), []).append(model)
            outcomes.append(found | {"weights": back(model.model.state_dict())})
    x = here(tickets.read(**setting)["test"][0][:4].float() / 255)
    quick = {name: [folded(n, x) for n in group] for name, group in networks.items()}
    return Sampler(quick, per="image", seed=setting["seed"]), outcomes


def shared(setting: dict) -> dict:
    """Return what a member's training has in common with the setting's."""
    return {k: setting[k] for k in ("dataset", "sizes", "seed")}


def subnetwork(found: dict, structure: dict, ratio: float, **setting) -> Normalised:
    """Return a member's network, on images in [0, 1]."""
    parts = tickets.read(**setting)
    spec = libraries.spec(structure, parts, setting["seed"])
    shelf = Library({"": spec}, libraries.scale(parts))
    shelf.add("", ratio, scratch.Ticket(found["masks"], found["statistics"]))
    return shelf.network("", ratio)


def answering(
    defences: list[str], guard: dict, owner: dict, **setting
) -> tuple[Service, list[dict], dict]:
    """Return the service, what is behind it (a network, or the members) and the parts.

    The guard's state is empty. Behind a team the service draws for each image.
    """
    for name in defences:
        one_of("defence", name, DEFENCES)
    order = [name for name in DEFENCES if name in defences]
    require(list(defences) == order, f"defences must be in the order {order}", defences)
    parts = tickets.read(**setting)
    if "team" in defences:
        model, outcomes = team(defences, owner, **setting)
        service = Service(model, PIXELS)
    else:
        stage, given = single(defences, owner, **setting)
        outcomes = [stage(**given)]
        model = signatures.network(outcomes[0]["weights"], **setting)
        service = Service(model, libraries.scale(parts))
    if guard["name"] != "none":
        service.defence = services.build(guard, parts=parts, **setting)
    return service, outcomes, parts


def key_of(outcome: dict, *, seed: int, **_) -> str:
    """Return the secret of a network's owner."""
    return outcome["key"]["secret"] if "key" in outcome else secret(seed)


def secret(seed: int) -> str:
    """Return the secret of the owner of an unsigned network."""
    return hashlib.sha256(f"lottolab owner {seed}".encode()).hexdigest()
