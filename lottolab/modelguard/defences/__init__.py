"""The defences of a prediction service, each a callable `defence(probs, x=None)`.

`simple` has the simple ones, `linear_program` ModelGuard-W, `quantisers` ModelGuard-S
and its unordered sibling (`centroids` is their state), `grown` (MAD) and
`misinformation` those that ask a network of their own; `mad` has MAD's objective and
an older search. `noise` draws. All check their rows by `simplex`.
"""
