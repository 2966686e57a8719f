"""Comparisons at equal terms: `frontier` at matched accuracy, `strongest` attacks.

Both read tidy tables, a row a measurement, and take a pool of images as the replicate:
its models are each other's references.
"""
