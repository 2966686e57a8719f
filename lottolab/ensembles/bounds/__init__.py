"""What no attack can change: bounds that hold for every example in a ball.

`smoothing` certifies a radius by randomised smoothing.
"""
