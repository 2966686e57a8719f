"""What chapter 3 measures: stages of plain arguments.

`libraries` finds the tickets and the networks beside them, `trials` attacks what is
made of them and scores it, `studies` asks the paper's other questions.
"""
