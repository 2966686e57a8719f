"""Helpers of the book on stolen, leaked and defended sparse networks.

Nothing heavy is imported here: ask for the module you need,
`from lottolab.nets import train, tickets`.
"""

__version__ = "0.1.0"
