"""Comparisons at equal terms: leakage at matched accuracy, in two ways.

`shared`, which chapter 5's stages use, compares treatments over the models and images
of a pool, with the error of both. `frontier` reads tidy tables, a row a measurement,
and takes a pool as the replicate, of which it wants two or more. The strongest of
several attacks in such tables is chosen by `lottolab.truth.intervals.strongest`.
"""
