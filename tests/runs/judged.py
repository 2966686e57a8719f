"""Ask another implementation of transitive code hashing about stages, in a child.

`python judged.py STAGE…` in a folder with a copy of the package prints as JSON, by
stage, checkpointer's hash of its code and the functions that it finds below it.
"""

import json
import sys

from checkpointer import checkpoint

from lottolab.jobs import named

if __name__ == "__main__":
    found = {}
    for name in sys.argv[1:]:
        ident = checkpoint(named.find(name).__wrapped__).ident
        below = [f"{f.__module__}:{f.__qualname__}" for f in ident.raw_ident.depends]
        found[name] = ident.fn_hash, below
    print(json.dumps(found))
