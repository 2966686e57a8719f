"""Run a chapter, or one stage of it, at every point of a grid.

`grids` reads what the points are, `points` runs them, here or on a Dask cluster, and
`one_stage` sweeps a single stage instead of a chapter. `sweep` puts them together.
"""
