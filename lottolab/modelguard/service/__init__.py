"""A network and its defence behind HTTP.

`endpoints` answers clients and `client` is one; `server` listens; `worker` answers in
batches, in the turns of `line`, with the defence of one of the `tenants`; `keys` says
who may ask, `state` is what must not be forgotten, `meters` is for the operator.
"""
