"""What chapter 4 measures: stages, by the arguments of `services`.

`services` trains targets and puts a defence before them, `attackers` ask, undo and
train, `thefts` measures what they steal, `composed` what attacks steal that are put
together, `single` keeps some predictions for a figure that moves, `studies` asks the
paper's other questions, and `rules` does all of it for what `services` has in a weaker
form than its authors: MAD.
"""
