"""What an owner and a judge answer.

`merging` joins channels that a thief split, `taming` takes out dust and giants,
`reading` verifies a signature after both,
`suspect` a file of somebody's. `provenance` asks where an accuser's pictures
come from; `boundary` makes pictures that need no training.
"""
