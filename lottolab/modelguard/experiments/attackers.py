"""What an attacker can do: ask, undo what the defence has done, train a substitute.

The arguments are those of `services`, and

attack: a dict of names. `ask`, in ASK: how the images are asked about; `table`, in
    TABLES: which pairs (answer, prediction) the attacker makes up to undo the defence,
    or `none`; `by`, in READ: how he uses them; `train`: how he trains on the result, a
    strategy of `extraction`, or `cell`.
public: data set (a dict) of the attacker's images, or `holdout`, the target's images
    that it was not trained on. budget: how many he has.
substitute: `network` and `recipe` of the substitute.
means: of the tables: `draws` a prediction; how many `shadows` and their `recipe`;
    `widths`, `epochs` and `batch` of the restorer.
"""

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lottolab import runs
from lottolab.images import datasets
from lottolab.modelguard import ModelGuardS, NoDefence, queries
from lottolab.modelguard.attacks import adaptive, averaging, bayes, extraction, restorer
from lottolab.modelguard.defences import noise
from lottolab.nets import tickets, train
from lottolab.nets.device import back, here

THIEF = 7_000_000  # is added to the seed: a substitute does not start as the target did
ATTACK = {"ask": "once", "table": "none", "by": "lookup", "train": "naive"}
PLAN = ("public", "budget", "substitute", "means")
TENANTS = 4


@dataclass(eq=False)
class Theft:
    """What an attacker has and knows while he steals.

    service: behind its defence. clean: the same without. scale: for the normalisation
    of his images. plan: the stage's arguments in PLAN. setting: those of `services`.
    exact: bool N, which of the latest answers he takes to be exact predictions.
    """

    service: queries.Service
    clean: queries.Service
    images: Tensor
    scale: tuple[Tensor, Tensor]
    how: dict
    plan: dict
    setting: dict
    exact: Tensor | None = None

    @property
    def seed(self) -> int:
        """Of all that the attacker draws."""
        return self.setting["seed"] + THIEF


def gathered(
    public: dict | str, budget: int, *, seed: int, **setting
) -> tuple[Tensor, Tensor]:
    """Return the attacker's images and the labels that they have in public."""
    if public == "holdout":
        images, labels = tickets.read(**setting, seed=seed)["holdout"]
    else:
        source = datasets.get(public)
        images, labels = source.images, source.labels
    places = queries.knockoff(len(images), budget, seed=seed + THIEF)
    return images[places], labels[places]


def ask(theft: Theft, images: Tensor) -> Tensor:
    """Return what the attacker takes from the service's answers, N×C."""
    return ASK[theft.how["ask"]](theft, images)


def once(theft: Theft, images: Tensor) -> Tensor:
    """Ask once; what a quantiser says for the first time is exact."""
    answers = theft.service(images)
    if isinstance(theft.service.defence, ModelGuardS):
        theft.exact = adaptive.first_seen(answers)
    return answers


def smoothed(theft: Theft, images: Tensor) -> Tensor:
    """Average over three versions of each image (the paper's n)."""
    return averaging.smoothed(theft.service, images, **augmented(theft))


def voted(theft: Theft, images: Tensor) -> Tensor:
    """Count the labels of ten versions of each image."""
    return averaging.voted(theft.service, images, **augmented(theft))


def augmented(theft: Theft) -> dict:
    """Return how images are changed: as in training, by a pixel at least."""
    recipe = train.recipe(theft.plan["substitute"]["recipe"])
    return {"crop": max(1, recipe.crop), "flip": recipe.flip, "seed": theft.seed}


def dithered(theft: Theft, images: Tensor) -> Tensor:
    """Average over thirty noisy copies."""
    return averaging.dithered(theft.service, images, seed=theft.seed)


def repeated(theft: Theft, images: Tensor) -> Tensor:
    """Ask sixteen times for the same."""
    return averaging.repeated(theft.service, images, 16)[0]


def tenants(theft: Theft, images: Tensor) -> Tensor:
    """Ask from several accounts, each with a state of its own, in several orders."""
    first = theft.service.defence

    def account() -> queries.Service:
        theft.service.defence = copy.deepcopy(first)
        return theft.service

    found = averaging.tenants(account, images, TENANTS, seed=theft.seed)
    answers, theft.exact = found
    return answers


ASK = {
    "once": once,
    "smoothed": smoothed,
    "voted": voted,
    "dithered": dithered,
    "repeated": repeated,
    "tenants": tenants,
}


def undo(theft: Theft, images: Tensor, answers: Tensor) -> Tensor:
    """Return what the attacker believes the predictions to be, N×C."""
    if theft.how["table"] == "none":
        return answers
    if theft.how["table"] == "mean":
        return noise.denoised(answers, theft.service.defence.epsilon)
    table = TABLES[theft.how["table"]](theft, images, answers)
    return READ[theft.how["by"]](theft, answers, table)


def known(theft: Theft) -> queries.Defence:
    """Return the defence as the attacker can compute it, who knows all of it."""
    guard = theft.service.defence
    return guard.peek if isinstance(guard, ModelGuardS) else guard


def oracle(theft: Theft, images: Tensor, answers: Tensor) -> bayes.Table:
    """Draw around the target's own predictions, as in the paper."""
    given = {"draws": theft.plan["means"]["draws"], "seed": theft.seed}
    return bayes.lookup_table(theft.clean(images), known(theft), images=images, **given)


def own(theft: Theft, images: Tensor, answers: Tensor) -> bayes.Table:
    """Draw around the predictions of a substitute that was stolen by labels alone.

    Labels are what a defence leaves as they are.
    """
    first = learn(replace(theft, how=theft.how | {"train": "top1"}), images, answers)
    given = {"draws": theft.plan["means"]["draws"], "seed": theft.seed}
    return bayes.own_table(first, images, theft.scale, known(theft), **given)


def shadows(theft: Theft, images: Tensor, answers: Tensor) -> bayes.Table:
    """Take the predictions of shadow models of the attacker's natural images."""
    found = shadowed(**theft.plan, **theft.setting)["clean"]
    parts = ((part, theft.images) for part in found.split(theft.plan["budget"]))
    return bayes.pairs(parts, known(theft))


TABLES = {"none": None, "mean": None, "oracle": oracle, "own": own, "shadows": shadows}


def lookup(theft: Theft, answers: Tensor, table: bayes.Table) -> Tensor:
    """Average the predictions whose answers are near."""
    return back(bayes.recover_partial_bayes(here(answers), table))


def network(theft: Theft, answers: Tensor, table: bayes.Table) -> Tensor:
    """Train a network to restore predictions."""
    given = {key: theft.plan["means"][key] for key in ("widths", "epochs", "batch")}
    return restorer.restore(restorer.fit(table, **given, seed=theft.seed), answers)


READ = {"lookup": lookup, "network": network}


@runs.stage("modelguard.experiments.attackers.shadowed")
def shadowed(
    *, public: dict | str, budget: int, substitute: dict, means: dict, **setting
) -> dict:
    """Predict the attacker's images by each of his shadow models: `clean`, S·N×C."""
    images, labels = gathered(public, budget, **setting)
    table = restorer.shadow_table(
        images,
        labels,
        datasets.get(setting["dataset"]).classes,
        substitute["network"],
        train.recipe(substitute["recipe"] | means["recipe"]),
        NoDefence(),
        shadows=means["shadows"],
        seed=setting["seed"],
    )
    return {"clean": table.clean}


def learn(theft: Theft, images: Tensor, targets: Tensor) -> nn.Module:
    """Train a substitute."""
    strategy, options = theft.how["train"], {}
    if strategy == "cell":
        epsilon = theft.service.defence.centroids.epsilon
        radius = torch.where(theft.exact, 0.0, epsilon)
        strategy, options = "naive", {"loss": adaptive.cell(radius)}
    given = {"strategy": strategy, "mean_std": theft.scale, "seed": theft.seed}
    recipe = train.recipe(theft.plan["substitute"]["recipe"])
    net = theft.plan["substitute"]["network"]
    return extraction.extract(images, targets, net, recipe, **given, **options)


def grow(theft: Theft, start: int) -> tuple[Tensor, Tensor]:
    """Make `budget` images of his first few by JBDA-TR; return them and the answers."""

    def substitute(images: Tensor, answers: Tensor) -> nn.Module:
        return learn(theft, images, undo(theft, images, answers))

    return queries.jbda(
        lambda images: ask(theft, images),
        theft.images[:start],
        theft.plan["budget"],
        substitute,
        mean_std=theft.scale,
        seed=theft.seed,
    )


NAMES = {"ask": ASK, "table": TABLES, "by": READ}
