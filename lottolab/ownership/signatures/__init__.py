"""Scheme V2: a text in the sparsity pattern of a layer.

`qr` makes codes, `squeeze` finds the layer's pattern, `embedding` changes it, and
`signature` writes and reads the text that a `key` remembers. `networks` does so for
networks of any make. `decoding` says what a reader of damaged codes is worth,
`detection` what can be seen without the key.
"""
