"""Intervals of measures that models and images share, and of the strongest attack.

`influence` measures, `crossed` makes the interval, `maxima` those of the strongest of
several attacks, which `strongest` chooses elsewhere, and `coverage` simulates at the
book's sizes how often they hold the truth.
"""
