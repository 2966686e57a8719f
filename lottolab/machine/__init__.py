"""This machine: install on it, make do with it, examine it, and test on it.

`settle` and `setup` run before anything is installed, `doctor` says what is missing
(`findings`) and how much is there (`capacity`), `card` what a GPU computes otherwise
than the CPU. `testing` is what `make test` does.
"""
