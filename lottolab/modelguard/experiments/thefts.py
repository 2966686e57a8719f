"""Steal a service, and measure what was stolen.

The arguments are those of `attackers`, and

jbda: from how many images the attacker grows `budget` by JBDA-TR instead; 0 for not.
"""

from lottolab import runs
from lottolab.checks import one_of
from lottolab.images import datasets
from lottolab.modelguard import ModelGuardS
from lottolab.modelguard.attacks import measures
from lottolab.modelguard.experiments import attackers, services
from lottolab.modelguard.experiments.attackers import Theft
from lottolab.nets import predict


@runs.stage("modelguard.experiments.thefts.stolen")
def stolen(*, attack: dict, defence: dict, jbda: int, **given) -> dict:
    """Steal a service; `metrics` of the substitute on the target's test images.

    `accuracy` and `fidelity`, in [0, 1]; the mean distance of what it was trained on to
    the target's predictions, `recovery ℓ1` and `recovery ℓ2`; how many images were
    `asked` about, and the `centroids` that the service has then; the share of answers
    that the attacker takes to be `exact`.
    """
    theft, parts = begun(attack, defence, **given)
    images = theft.images
    if jbda:
        images, answers = attackers.grow(theft, jbda)
    else:
        answers = attackers.ask(theft, images)
    targets = attackers.undo(theft, images, answers)
    model = attackers.learn(theft, images, targets)
    test, labels = parts["test"]
    found = predict.logits(model, test, theft.scale)
    clean = theft.clean(images)
    metrics = {
        "accuracy": predict.accuracy(found, labels),
        "fidelity": measures.fidelity(found, theft.clean(test)),
        "recovery ℓ1": measures.recovery_distance(targets, clean),
        "recovery ℓ2": measures.recovery_distance(targets, clean, p=2),
        "asked": theft.service.asked,
    }
    if isinstance(theft.service.defence, ModelGuardS):
        metrics["centroids"] = theft.service.defence.count
    if theft.exact is not None:
        metrics["exact"] = float(theft.exact.double().mean())
    return {"metrics": metrics}


def begun(attack: dict, defence: dict, **given) -> tuple[Theft, dict]:
    """Put up the service and give the attacker his images; and the target's parts."""
    how = attackers.ATTACK | attack
    for key in attack:
        one_of("a choice of an attack", key, attackers.ATTACK)
    for key, names in attackers.NAMES.items():
        one_of(f"the attack's {key}", how[key], names)
    plan = {key: given[key] for key in attackers.PLAN}
    setting = {key: given[key] for key in given.keys() - set(attackers.PLAN)}
    service, parts = services.defended(defence, **setting)
    clean, _ = services.trained(**setting)
    images, _ = attackers.gathered(**plan, **setting)
    scale = datasets.normalisation(images)
    return Theft(service, clean, images, scale, how, plan, setting), parts
