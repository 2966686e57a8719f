"""Membership attacks that chapter 2 does not have, by self-attention.

`class_tokens` is SAMIA as published; `samia` is this book's own, with three tokens.
"""
