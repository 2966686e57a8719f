"""Run the book: a chapter, all of it, or a grid of settings.

`execute` runs a chapter's notebook, in `kernel`. `edition` runs the whole book,
`rerun` a chapter with a reader's parameters and `compare` says what these changed.
`dryrun` says what a run would cost, and `rehearsal` what the papers' scale would.
`sweep` runs a grid: `grids` reads it, `points` runs its points, and `one_stage` sweeps
a single stage. `verify` says what is stale, and stamps what is current again.
`commands` are the words for all of it.
"""
