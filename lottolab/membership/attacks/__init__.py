"""Attacks that ask who was in the training set.

`thresholds` cut one score; `supervised` learns from examples, `nasr` by a network;
`lira` and `rmia` compare with models of the attacker's own.
"""
