"""What chapter 2 measures: stages, by the arguments of `lottolab.nets.tickets`.

`sizes` are those of `partition.halves`: every target is one of `models` networks that
each train on half of a pool. Its members are its half, its non-members the other half,
and fresh non-members are the `test` images, which no model of the pool has seen.

`targets` trains and questions networks, `attacks` attacks single ones, `families`
attacks all the models of a pool by each other.
"""
