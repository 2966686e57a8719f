"""What chapter 5 measures: stages, by the arguments of `lottolab.nets.tickets`.

`treatments` trains networks from one dense parent, `leaks` attacks them by chapter 2's
suite, `studies` asks the paper's other questions.
"""
