"""The labs: exercises that grade themselves, made with nbgrader.

`build` makes the student editions and the course folder, `pack` one zip of each, and of
a chapter, with what it `needs`; `grade` grades what students hand in, `contain` says
what their code may touch meanwhile. The labs themselves lie in
`book/labs/source`, a folder each: a notebook in nbgrader's format, and `prepare.py`,
which makes the lab's data.
"""
