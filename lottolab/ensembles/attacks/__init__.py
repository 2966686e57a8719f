"""Attacks in the l∞ ball, on one network or a random team of them.

`gradient` has PGD and a universal perturbation, `arc` goes against randomised
ensembles, `autoattack` is the field's standard, and `transfer` tries what was made for
one model on another.
"""
