"""Defences against membership inference.

`admm` prunes while it trains, `dp` trains with differential privacy, which `accounting`
counts, `minmax` against an attacker who trains too, and `ppb` makes predictions look
alike.
"""
