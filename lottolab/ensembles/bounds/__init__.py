"""What holds whatever is tried: for every example in a ball, or for every law.

`smoothing` certifies a radius by randomised smoothing; `benefit` finds the best law
over given networks.
"""
