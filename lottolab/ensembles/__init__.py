"""Chapter 3: dynamic stochastic ensembles of robust tickets (Peng et al., 2022).

`tickets` finds robust subnetworks of random networks, `library` keeps them, `sampler`
answers as a team that one of the `laws` draws. `attacks` has PGD and universal
perturbations, `arc` and `autoattack` the attacks that matter for a defence that draws,
`transfer` the matrices of Figure 1, `masking` the signs of a hidden gradient. `folding`
makes a network quicker to attack. `experiments` has the chapter's stages, `figures` its
figures.
"""

from lottolab.ensembles.attacks.arc import arc
from lottolab.ensembles.attacks.gradient import pgd, universal
from lottolab.ensembles.attacks.transfer import transfer_matrix
from lottolab.ensembles.library import Library
from lottolab.ensembles.queries import Normalised
from lottolab.ensembles.sampler import Sampler
from lottolab.ensembles.tickets import find_ticket

__all__ = [
    "Library",
    "Normalised",
    "Sampler",
    "arc",
    "find_ticket",
    "pgd",
    "transfer_matrix",
    "universal",
]
