"""How often intervals hold, by simulation of the book's own designs.

`pools` draws models that share a pool of images and refer to each other, `seeds`
networks that answer about test images, draws and attacks, and `table` counts how often
the intervals before and after contain the truth.
"""
