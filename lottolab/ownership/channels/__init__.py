"""The channels of a network, and how to bring those of a suspect back into order.

`naming` names them, in residual networks and any others, `alignment` aligns a residual
network to a reference, and `matching` any network whose layers are known, of which
`views` sees each weight as rows and columns.
"""
