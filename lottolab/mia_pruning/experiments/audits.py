"""Is private training private? One run with crafted canaries, and with less noise."""

import torch

from lottolab import runs
from lottolab.checks import within
from lottolab.images import datasets
from lottolab.mia_pruning.defences import control
from lottolab.mia_pruning.defences.accounting import noise_multiplier
from lottolab.mia_pruning.experiments import treatments
from lottolab.mia_pruning.privacy import canaries as crafted
from lottolab.mia_pruning.privacy import one_run

SHARE = 0.9  # of the canaries that are guessed: half of so many fair coins are "in"
COINS = 5_000_000  # is added to the seed, which the training has too


@runs.stage("mia_pruning.experiments.audits.proven")
def proven(
    *, canaries: int, budget: dict, noise: float, second: dict, **setting
) -> dict:
    """Bound the ε of private training from below, in one run with so many canaries.

    The training is `treatments.private`'s: its images, rate of sampling, steps, rate of
    learning, clipping and σ. Its canaries' places are more examples, so that the
    expected batch grows with them and its rate q stays. `noise` ≥ 0 is the part of the
    σ of the budget that the training really adds, and all else the same: 1 is honest, 0
    the control that an audit must catch, what lies between says how sharp it is.

    Neighbours differ by one canary, present or an empty place (add/remove); q, the
    steps and the expected batch that divides the sum follow from the places, not from
    how the coins fell. That batch is larger than the private training's, so that the
    images move the network less than there: what is audited is the mechanism.

    `metrics`: the `bound` at the budget's δ, with 95 % confidence; its `cap`, what as
    many right guesses would have shown; `right`, the share of the guesses that were;
    `surplus`, this less the share that honest noise lets be right (see
    `canaries.expected_right`); and `spent`, the ε that the noise keeps to, which is
    infinite without any and then left out.
    """
    within("noise", noise, "[0, inf)")
    seed = setting["seed"]
    model, parts = treatments.fresh(**setting)
    images, labels = parts["train"]
    scale = datasets.normalisation(images)
    trapped = crafted.Trapdoor(model, canaries, images.shape[1:], scale, seed)
    present = crafted.coins(canaries, seed + COINS)
    more, wrong = trapped.examples(present)
    x, y = torch.cat([images, more]), torch.cat([labels, wrong])
    epochs, rate = treatments.both(second, **setting), budget["batch"] / len(images)
    batch = round(rate * len(x))
    steps = epochs * round(len(x) / batch)
    given = (budget["epsilon"], budget["delta"], batch / len(x), steps)
    sigma = noise_multiplier(*given)
    own = {"batch": batch, "sigma": noise * sigma, "epochs": epochs, "mean_std": scale}
    own |= {name: budget[name] for name in ("lr", "clip", "delta")}
    spent = control.dp_control(trapped, x, y, **own, seed=seed).epsilon
    scores = trapped.scores().numpy()
    found = one_run.audit(scores, present.numpy(), budget["delta"], shares=(SHARE,))
    values = {"bound": found.epsilon, "cap": found.cap}
    values["right"] = found.correct / found.guesses
    honest = crafted.expected_right(sigma, batch / len(x), steps, SHARE)
    values["surplus"] = values["right"] - honest
    return {"metrics": values | ({"spent": spent} if noise else {})}
