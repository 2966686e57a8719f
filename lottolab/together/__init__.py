"""What happens when the five meet: the one room that uses all the others.

A *setting* holds the arguments of `lottolab.nets.tickets`, with the sizes of
`partition.halves`: a network's members are its half of a pool, and the other models of
that pool, chapter 2's, are what its owner and its attackers compare it with. Beside it,
plain dicts that only the stages get which need them:

owner: `text`, `ecc`, `triggers` (a batch) as for `ownership.experiments.signatures`;
    `sparsities`, without and with the defence "pruning"; `team`, see `systems.member`.
guard: the defence before the service, a dict as for `modelguard.experiments.services`.
thief: `images`, how many of his own he has; `network` and `recipe` of what he trains.

`systems` builds what is defended, `worth` measures what each defence is for, `evidence`
asks whose a network is. `leaks` asks for members, `echoes` asks a mask alone for them,
`memories` networks that are robust; `figures` draws. The stages are the book's chapter
`together`.
"""
