"""What chapter 2 measures: stages, by the arguments of `lottolab.nets.tickets`.

`sizes` are those of `partition.halves`: every target is one of `models` networks that
each train on half of a pool. Its members are its half, its non-members the other half,
and fresh non-members are the `test` images, which no model of the pool has seen.

`targets` trains and questions networks, `attacks` attacks single ones, `families`
attacks all the models of a pool by each other; `relative` adds RMIA at γ = 1 and takes
the strongest of all. `encodings` is the paper's attack with all that it has, `apart`
has shadows that share no image with the target, `borrowed` masks of other images.
"""
