"""Comparisons at equal terms: `frontier`, leakage at matched accuracy.

It reads tidy tables, a row a measurement, and takes a pool of images as the replicate:
its models are each other's references. The strongest of several attacks is chosen by
`lottolab.truth.intervals.strongest`, which chapter 2 uses too.
"""
