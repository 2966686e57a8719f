"""What chapter 4 measures: stages, by the arguments of `services`.

`services` trains targets and puts a defence before them, `attackers` ask, undo and
train, `thefts` measures what they steal, `studies` asks the paper's other questions.
"""
