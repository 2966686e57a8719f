"""What counts as evidence: intervals, and claims that are judged by them.

`results` keeps what was measured in tables.
`stats` makes intervals over seeds, and `rates` exact ones of hits in trials;
`intervals` has those of measures that models and images share and of the strongest of
several attacks, and simulates how often they hold.
`claims_file` reads what the papers claim (a `claim`) from `data/claims.yaml`,
`selection` selects the measurements that decide it, `verdicts` has the rules,
`deciding` applies them to one test, `claims` judges, the headline claims together, and
`power` says how many seeds would decide what is inconclusive.
"""
