"""What a thief does: `removal` of weights, and `symmetry`, which keeps the function."""
