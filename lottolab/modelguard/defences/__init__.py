"""The defences of a prediction service, each a callable `defence(probs, x=None)`.

`simple` has the simple ones, `linear_program` ModelGuard-W, `quantisers` ModelGuard-S
and its unordered sibling (`centroids` is their state), `mad` and `misinformation` those
that ask a network of their own. `noise` draws. All check their rows by `simplex`.
"""
