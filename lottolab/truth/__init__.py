"""What counts as evidence: intervals, and claims that are judged by them.

`stats` makes intervals over seeds, and `rates` exact ones of hits in trials; `crossed`
those of measures (`influence`) that models and images share, `maxima` those of the
strongest of several attacks. `coverage` simulates how often they hold.
`claims_file` reads what the papers claim from `data/claims.yaml`, `selection` selects
the measurements that decide it, `claims` judges, and `power` says how many seeds would
decide what is inconclusive.
"""
