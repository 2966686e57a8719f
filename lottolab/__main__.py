"""Run a command in the project's own `.venv`, which is made where it is missing.

`python -m lottolab` works with nothing but Python 3.11: this file, `machine` and
`setup` need only the standard library.
"""

import subprocess
import sys

if sys.version_info < (3, 11):  # noqa: UP036 - said before anything can fail
    sys.exit(
        "lottolab needs Python 3.11 or newer, this is {}.{}; install a newer Python "
        "and call it by name: python3.12 -m lottolab".format(*sys.version_info)
    )

from lottolab.machine import settle, setup

if __name__ == "__main__":
    settle.settle()
    try:
        if sys.argv[1:] == ["doctor"]:  # says what is missing, and installs nothing
            found = setup.interpreter()
            python = found if found.exists() else sys.executable
            sys.exit(subprocess.call([python, "-m", "lottolab.machine.doctor"]))
        python = setup.ready()
        sys.exit(subprocess.call([python, "-m", "lottolab.cli", *sys.argv[1:]]))
    except KeyboardInterrupt:
        sys.exit(130)
