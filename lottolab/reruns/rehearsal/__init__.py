"""Rehearse a chapter at a scale that this machine cannot run, and say what it costs.

The chapter's own cells say what it would ask for (`plan`). Of the runs that differ only
in seeds, real numbers and how many images there are, one is computed (`rehearsal`), on
fewer images (`arguments`), but with networks and images of full size. Its loops take
their last steps alone (`jobs.steps`), and what they did and left out is counted
(`meter`). How all other work grows is measured, by doubling one number after the other.
Data sets are read in their true formats, from tiny archives where the real ones are
absent (`images.archives`). What all runs take follows from that (`cost`).
"""
