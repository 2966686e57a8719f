"""Defences against membership inference.

`admm` prunes while it trains, and `convergence` says whether it has converged. `dp`
trains with differential privacy, which `accounting` counts; `control` takes its noise
or its clipping away. `minmax` trains against an attacker who trains too, and `ppb`
makes predictions look alike.
"""
