"""A network and its defence behind HTTP.

`endpoints` is the server and `client` asks it; `worker` answers in batches, `state` is
what must not be forgotten, `meters` counts.
"""
