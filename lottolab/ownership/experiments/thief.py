"""Attack a signed network, and see what is left of the owner's evidence."""

import numpy as np

from lottolab import runs
from lottolab.checks import one_of, require
from lottolab.nets import masks as masking
from lottolab.nets import tickets
from lottolab.ownership import framework
from lottolab.ownership.attacks import removal
from lottolab.ownership.channels import alignment
from lottolab.ownership.channels.naming import State
from lottolab.ownership.experiments import signatures
from lottolab.ownership.experiments.attacks import ATTACKS, fine_tune
from lottolab.ownership.signatures import qr, signature
from lottolab.ownership.signatures.key import SignatureKey


@runs.stage("ownership.experiments.thief.attacked")
def attacked(*, attack: dict, epochs: int, aligned: bool = False, **given) -> dict:
    """Attack a signed network, train it for `epochs` on the thief's images, look again.

    `attack` holds a `name` of `ATTACKS` and its options; `given` are the
    arguments of `signatures.signed`. `metrics` are the accuracy, the
    density, all that `signatures.recognised` finds, and whether the text
    is decoded with no threshold at all and with the paper's absolute one;
    if `aligned`, also what is found after the channels are brought back
    into the order of the owner's unsigned ticket.
    """
    one_of("attack", attack["name"], ATTACKS)
    trainable = attack["name"] not in ("folded", "widened") or not epochs
    require(trainable, f"epochs must be 0 after {attack['name']}", epochs)
    owned, setting = signatures.signed(**given), signatures.setting(given)
    options = {k: v for k, v in attack.items() if k != "name"}
    state = ATTACKS[attack["name"]](owned, given, **options)
    if epochs:
        masks = removal.sparsity(state, sorted(owned["masks"]))
        state = fine_tune(state, masks, epochs, **setting)
    key, text = SignatureKey(**owned["key"]), given["text"]
    metrics = described(state, owned, **setting)
    metrics |= signatures.recognised(state, key, text, **setting)
    if key.fits(state):
        metrics |= readings(state, owned, key, text)
    if aligned:
        twin = tickets.iterative(rates=given["rates"], **setting)["weights"]
        back = alignment.align(state, twin)
        found = signatures.white_box(back, key, text)
        metrics |= {f"aligned {name}": value for name, value in found.items()}
    return {"metrics": metrics}


@runs.stage("ownership.experiments.thief.moved")
def moved(*, other: str | dict, sizes_there: dict, epochs: int, **given) -> dict:
    """Fine-tune a signed network on the data set `other`, and back (section 4.3).

    There it gets a new classifier and `epochs` on that set's training
    images; back here it has its old classifier again and as many epochs on
    the thief's images. Metrics that end in "there" are of the way out.
    """
    owned, setting = signatures.signed(**given), signatures.setting(given)
    key, text = SignatureKey(**owned["key"]), given["text"]
    there = setting | {"dataset": other, "sizes": sizes_there}
    model = tickets.build(parts=tickets.read(**there), **there)
    head = {k: v for k, v in model.state_dict().items() if k.startswith("fc.")}
    old = {k: owned["weights"][k] for k in head}
    masks = owned["masks"]
    out = fine_tune(owned["weights"] | head, masks, epochs, part="train", **there)
    back = fine_tune(out | old, masks, epochs, **setting)
    accuracy = tickets.accuracy(signatures.network(out, **there), tickets.read(**there))
    modules = signature.verify(out, key, claim=text).agreement
    metrics = {"test_accuracy there": accuracy, "modules there": modules}
    metrics |= described(back, owned, **setting)
    return {"metrics": metrics | signatures.recognised(back, key, text, **setting)}


def described(state: State, owned: dict, **setting) -> dict[str, float]:
    """Return what the network is worth to the thief: accuracy, density, fidelity."""
    model, parts = signatures.network(state, **setting), tickets.read(**setting)
    accuracy = tickets.accuracy(model, parts)
    kept = removal.sparsity(state, sorted(owned["masks"]))
    faithful = framework.fidelity(accuracy, owned["accuracy"]["test"])
    metrics = {"test_accuracy": accuracy, "fidelity": float(faithful)}
    return metrics | {"density": masking.density(kept)}


def readings(
    state: State, owned: dict, key: SignatureKey, text: str
) -> dict[str, float]:
    """Decode with no threshold and with an absolute one, and count the window's losses.

    The absolute threshold is the paper's defence: half the size of the weakest living
    kernel in the owner's own network.
    """
    kept = owned["weights"][key.layer][key.window].abs().flatten(2).amax(2)
    limit = float(kept[kept > 0].min()) / 2
    found = {"none": state, "absolute": removal.below(state, [key.layer], limit)}
    metrics = {}
    for name, seen in found.items():
        modules = signature.extract(seen, key, threshold=0.0)
        read = signature.decode(modules, key).text
        metrics[f"decoded, threshold {name}"] = float(read == text)
    before = owned["masks"][key.layer][key.window]
    lost = before & (state[key.layer][key.window] == 0)
    return metrics | {"lost": float(lost.sum() / before.sum())}


def picture(label: str, attack: dict, **given) -> tuple[str, np.ndarray, bool]:
    """Return the code that the owner reads after an attack, for `figures.codes`.

    Its label, the uncovered modules with the patterns that make a QR code of them, bool
    size×size, and whether the text is decoded.
    """
    owned = signatures.signed(**given)
    options = {k: v for k, v in attack.items() if k != "name"}
    state = ATTACKS[attack["name"]](owned, given, **options)
    key = SignatureKey(**owned["key"])
    modules = signature.extract(state, key)
    whole = qr.draw(signature.covered(modules, key), key.form)
    return (
        label,
        whole,
        signature.verify(state, key).text == key.spelling(given["text"]),
    )
