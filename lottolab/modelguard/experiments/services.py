"""The services that are attacked: a target, and a defence before it.

The arguments of the stages, called a `setting`, are those of `lottolab.nets.tickets`,
which describe the target; and

outliers: data set (a dict, as `dataset`) for outlier exposure, without shared classes.
defence: a dict of a `name` in DEFENCES and the arguments of that defence.
"""

import inspect

import torch

from lottolab import runs
from lottolab.checks import one_of, require
from lottolab.images import datasets
from lottolab.modelguard import (
    AdaptiveMisinformation,
    ModelGuardS,
    ModelGuardW,
    NoDefence,
    ReverseSigmoid,
    Rounding,
    TopOne,
    UnorderedQuantiser,
)
from lottolab.modelguard.defences import misinformation, noise
from lottolab.modelguard.defences.mad import StraightMAD
from lottolab.modelguard.queries import Defence, Service
from lottolab.nets import masks, tickets, train

SURROGATE = 5_000_000  # is added to the seed: MAD's network is nobody else's
LIAR = 6_000_000  # and so is the one that was trained to be wrong


@runs.stage("modelguard.experiments.services.target")
def target(*, outliers: dict, **setting) -> dict:
    """Train the network that is stolen, with outlier exposure (appendix B.3).

    What comes back is that of `tickets.judge`.
    """
    parts, seed = tickets.read(**setting), setting["seed"]
    model = tickets.build(parts=parts, **setting)
    foreign, scale = (
        datasets.get(outliers).images,
        datasets.normalisation(parts["train"][0]),
    )
    loss = misinformation.outlier_exposure(foreign, scale)
    recipe = train.recipe(setting["recipe"])
    fitted = train.fit(model, *parts["train"], recipe, seed=seed, loss=loss)
    return tickets.judge(model, masks.dense(model), parts, fitted)


@runs.stage("modelguard.experiments.services.liar")
def liar(**setting) -> dict:
    """Train the network that Adaptive Misinformation answers with; as `target`."""
    parts, number = tickets.read(**setting), setting["seed"] + LIAR
    model = tickets.build(parts=parts, **setting | {"seed": number})
    guard = AdaptiveMisinformation(tau=0.5)
    recipe = train.recipe(setting["recipe"])
    fitted = guard.fit(model, *parts["train"], recipe, seed=number)
    return tickets.judge(model, masks.dense(model), parts, fitted)


def trained(**setting) -> tuple[Service, dict]:
    """Return the target, without a defence, and its parts as `tickets.read` does."""
    parts = tickets.read(**setting)
    model = tickets.build(parts=parts, **setting)
    model.load_state_dict(target(**setting)["weights"])
    return Service(model, datasets.normalisation(parts["train"][0])), parts


def defended(defence: dict, **setting) -> tuple[Service, dict]:
    """Return the target behind a defence with an empty state, and its parts."""
    service, parts = trained(**setting)
    service.defence = build(defence, parts=parts, **setting)
    return service, parts


def build(defence: dict, parts: dict, **setting) -> Defence:
    """Make a defence of a dict of its name and arguments."""
    one_of("defence", defence["name"], DEFENCES)
    own = {k: v for k, v in defence.items() if k != "name"}
    make = DEFENCES[defence["name"]]
    if defence["name"] in QUANTISERS:
        return make(**own, num_classes=parts["classes"])
    if defence["name"] in NETWORKS:
        return make(**own, parts=parts, setting=setting)
    return make(**own)


def check(
    epsilons: list[float],
    betas: list[float],
    taus: list[float],
    grow: list[int],
    budget: int,
    small: int,
) -> None:
    """Raise ValueError now if the chapter would raise it later."""
    rising = len(epsilons) in (1, 4) and sorted(set(epsilons)) == list(epsilons)
    require(rising, "epsilons must be 4 different, rising values, or one", epsilons)
    for name, values in {"betas": betas, "taus": taus}.items():
        require(len(values) == 2, f"{name} must be 2, one a target", values)
    right = len(grow) == 2 and grow[0] < grow[1] <= budget
    require(right, f"grow must be 2 rising numbers up to budget = {budget}", grow)
    require(small <= budget, f"small must be at most budget = {budget}", small)


def check_target(
    *, foreign: dict, outliers: dict, public: dict | str, budget: int, **given
) -> None:
    """Raise ValueError now if a stage would raise it later for this target.

    `given` also holds `substitute` and `means`, as for `thefts`.
    """
    own = ("dataset", "sizes", "network", "recipe", "rewind_at")
    setting = {key: given[key] for key in own}
    tickets.check(**setting)
    shape = list(tickets.read(**setting, seed=0)["train"][0].shape[1:])
    others = {"foreign": foreign, "outliers": outliers}
    if public != "holdout":
        others["public"] = public
        there = len(datasets.get(public).images)
        require(
            budget <= there, f"budget must be at most {there}, all there is", budget
        )
    for name, chosen in others.items():
        found = list(datasets.get(chosen).images.shape[1:])
        require(found == shape, f"{name} must have images of {shape}", found)
    recipe = train.recipe(given["substitute"]["recipe"])
    what = f"budget must be at least the batch, {recipe.batch}"
    require(budget >= recipe.batch, what, budget)


def mad(epsilon: float, parts: dict, setting: dict) -> StraightMAD:
    """Return the first edition's MAD; its surrogate has random weights, as the paper's.

    The chapter's is that of `rules`.
    """
    number = setting["seed"] + SURROGATE
    surrogate = tickets.build(parts=parts, **setting | {"seed": number})
    return StraightMAD(surrogate, datasets.normalisation(parts["train"][0]), epsilon)


def misinformed(tau: float, parts: dict, setting: dict) -> AdaptiveMisinformation:
    """Return Adaptive Misinformation with the network that was trained to be wrong."""
    model = tickets.build(parts=parts, **setting)
    own = {k: v for k, v in setting.items() if k != "outliers"}
    model.load_state_dict(liar(**own)["weights"])
    scale = datasets.normalisation(parts["train"][0])
    return AdaptiveMisinformation(tau, model=model, mean_std=scale)


def warmed(epsilon: float, parts: dict, setting: dict) -> ModelGuardS:
    """Return ModelGuard-S after it has answered what its owner asked.

    Not in the paper. The owner asks about his training images, and about the mean of
    each with a random other one, which predictions of foreign images resemble.
    """
    guard = ModelGuardS(epsilon, parts["classes"])
    service, _ = trained(**setting)
    service.defence = guard
    images = parts["train"][0]
    generator = torch.Generator().manual_seed(setting["seed"])
    others = images[torch.randperm(len(images), generator=generator)]
    service(images // 2 + others // 2)
    service(images)
    return guard


QUANTISERS = {"ModelGuard-S": ModelGuardS, "unordered": UnorderedQuantiser}
NETWORKS = {"MAD": mad, "AM": misinformed, "warm ModelGuard-S": warmed}
DEFENCES = {
    "none": NoDefence,
    "RevSig": ReverseSigmoid,
    "Top-1": TopOne,
    "Rounding": Rounding,
    "ModelGuard-W": ModelGuardW,
    "noise": noise.Noise,
    **QUANTISERS,
    **NETWORKS,
}
# What they are called on the command line, and what some need besides numbers.
NAMES = {name.lower().replace(" ", "-"): name for name in DEFENCES}
MISSING = {
    "mad": "the thief's surrogate, a second network",
    "am": "a second network that was trained to be wrong",
    "warm-modelguard-s": "its owner's training images",
}


def served(name: str, given: dict, classes: int) -> Defence:
    """Make a defence for the service over HTTP by its name and options there.

    Raises:
        ValueError: no such defence, an option that it does not have or lacks or that is
            out of range, or one that needs more than a network and numbers.
    """
    one_of("the defence", name, NAMES)
    if name in MISSING:
        raise ValueError(
            f"the defence {name} needs {MISSING[name]}, which the network's "
            "file does not hold; serve it from Python by "
            "lottolab.modelguard.service.endpoints.app"
        )
    make = DEFENCES[NAMES[name]]
    wanted = [n for n in inspect.signature(make).parameters if n != "num_classes"]
    secret = {"seed": "--seed-file"}  # its value shall be in no message
    words = " and ".join(secret.get(n, f"--{n}") for n in wanted)
    odd = sorted(given.keys() ^ set(wanted))
    said = " ".join(secret.get(n, f"--{n} {v}") for n, v in given.items())
    require(not odd, f"{name} takes {words or 'no options'}", said or "none")
    return build({"name": NAMES[name]} | given, parts={"classes": classes})
