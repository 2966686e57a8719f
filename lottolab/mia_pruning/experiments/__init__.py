"""What chapter 5 measures: stages, by the arguments of `lottolab.nets.tickets`.

`treatments` and `controls` train networks from one dense parent or initialisation,
`leaks` attacks them by chapter 2's suite and `shadows` by Yuan and Zhang's. `terms`
compares treatments of a pool at equal terms, `audits` tests a guarantee, and `studies`
asks the paper's other questions.
"""
