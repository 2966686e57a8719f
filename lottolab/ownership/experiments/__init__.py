"""The chapter's experiments as stages, one module for each part of the page.

`keys` scheme V1, `signatures` V2 and V3 and false claims, `thief` attacks on a signed
network, `codes` what pruning makes of its code, `ambiguity` false evidence; stronger
thieves, each beside what answers it: `disguises` at no cost, `rewriting` by training
on, `black_box` by answers alone; and `innocents`, whom nobody signed. A `setting` holds
the arguments that all stages of `lottolab.nets.tickets` share; `rates` are the pruning
rates that lead to a ticket. What a stage measured stands in its `metrics`, plain
numbers by name, one row of the results table each.
"""
