"""Networks: made, pruned, trained, asked and kept.

`models` builds a network by its name from `resnets` and `mobilenet`. `masks` prunes,
`foresight` before training; `train` trains, and `tickets` finds lottery tickets by
both. `predict` asks, `checkpoint` reads and writes, `device` says where all of it runs.
`strided` keeps a fault of torch's convolutions away.
"""
