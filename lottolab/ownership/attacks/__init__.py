"""What a thief does, and an accuser.

To weights: `removal` takes some away, `resigning` writes another signature over the
owner's, `training` goes on with the mask or without it. At no cost to the function:
`symmetry` moves and resizes channels, `obfuscation` splits and adds them, `signs` does
both with channels that are no multiples of others, `silencing` hides the others behind
some that are always zero. `detector` looks for the window, `filtering` for the owner's
pictures, and `accusing` claims what others trained.
"""
