"""Copying a service: what is made of its answers.

`extraction` trains a substitute on them, `averaging` asks several times, `bayes`,
`inverses` and `restorer` undo a known defence first, `adaptive` has losses for what
ModelGuard-S gives away, and `measures` says what an attack achieves.
"""
