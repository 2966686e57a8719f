"""Chapter 4: what must a service distort so that copying it stops paying (Tang et al.)?

The defences, each a callable `defence(probs, x=None)`: `defences` has the simple ones,
`linear_program` ModelGuard-W, `quantisers` ModelGuard-S and its unordered sibling
(`centroids` is their state), `grown` (MAD) and `misinformation` those that ask a
network of their own; `mad` has MAD's objective and an older search. `noise` draws.
`utility` says what the honest user pays, `lemmas` checks the paper's.

The attacks: `queries` asks, `averaging` asks several times, `extraction` trains a
substitute on the answers, `bayes`, `inverses` and `restorer` undo a known defence
first, `adaptive` has losses for what ModelGuard-S gives away, and `measures` says what
an attack achieves. `experiments` has the chapter's stages, `figures` its figures.

`service` puts a network and a defence behind HTTP, for `client` to ask: `worker`
answers in batches, `state` is what must not be forgotten, `meters` counts.
"""

from typing import TYPE_CHECKING

from lottolab import lazily

if TYPE_CHECKING:  # they are imported when they are asked for
    from lottolab.modelguard.attacks.bayes import recover_partial_bayes
    from lottolab.modelguard.attacks.extraction import extract
    from lottolab.modelguard.defences.grown import MAD
    from lottolab.modelguard.defences.linear_program import ModelGuardW
    from lottolab.modelguard.defences.misinformation import AdaptiveMisinformation
    from lottolab.modelguard.defences.quantisers import ModelGuardS, UnorderedQuantiser
    from lottolab.modelguard.defences.simple import (
        NoDefence,
        ReverseSigmoid,
        Rounding,
        TopOne,
    )

__all__ = [
    "MAD",
    "AdaptiveMisinformation",
    "ModelGuardS",
    "ModelGuardW",
    "NoDefence",
    "ReverseSigmoid",
    "Rounding",
    "TopOne",
    "UnorderedQuantiser",
    "extract",
    "recover_partial_bayes",
]

__getattr__ = lazily(__name__)
