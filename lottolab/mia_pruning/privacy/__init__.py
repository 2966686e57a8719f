"""Audits of private training that can fail: in one run, with canaries that show.

`one_run` makes the bound of one training with many canaries, and says how large a bound
so many canaries can show; `canaries` makes them: Dirac gradients that Opacus' own code
clips and adds noise to, and images that no training set has.
"""
