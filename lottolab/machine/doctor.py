"""Say what this machine has and lacks, for whom, and which command mends it.

Needs only the standard library, so that it can say that all else is missing. A bug
report starts with its output: plain ASCII, at most 100 columns, no password.
"""

import importlib.util
import os
import platform
import subprocess
import sys
import textwrap

from lottolab import __version__
from lottolab.labs import needs
from lottolab.machine import capacity, findings, setup
from lottolab.machine.findings import NEEDED, OK, Line
from lottolab.units import gb


def main() -> int:
    """Print the page; return 1 where something is missing for the README's commands."""
    parts = page()
    print(f"lottolab {__version__}{_commit()} on {platform.platform()}")
    for title, lines in parts.items():
        print(f"\n{title}")
        for line in lines:
            print(_wrapped(f" {line.mark} ", line.text))
            if line.mend:
                print(_wrapped("    -> ", line.mend))
    count = sum(line.mark == NEEDED for lines in parts.values() for line in lines)
    ready = "`make book` and `make test` have what they need"
    told = f"{count} needed by `make book` and `make test` (!!)" if count else ready
    print(f"\n{told}; what is marked -- leaves something out.")
    return int(bool(count))


def page() -> dict[str, list[Line]]:
    """Return the findings by heading: the machine, then each of the three readers."""
    cores, memory = capacity.cores(), capacity.memory()
    lacking = findings.requirements(needs.groups(setup.ROOT / "pyproject.toml"))
    told = findings.torch_lines() if importlib.util.find_spec("torch") else []
    what = f"{cores} cores, {gb(memory) if memory else 'unknown'} of memory"
    machine = [
        Line(OK, f"Python {platform.python_version()}: {sys.executable}"),
        *lacking,
        *told,
        Line(OK, what),
        *findings.disk(setup.ROOT, installed=not lacking),
        findings.store(os.environ.get("LOTTOLAB_STORE") or setup.ROOT / ".lottolab"),
        *findings.environment(os.environ),
    ]
    return {
        "This machine": machine,
        "You read": [findings.make(), findings.rendered(setup.ROOT / "_build")],
        "You rerun": [
            *findings.scales(setup.ROOT / "data/results", cores, memory),
            *findings.readers(),
        ],
        "You teach, or run the tests": [findings.bubblewrap(), findings.browser()],
    }


def _commit() -> str:
    try:
        command = ["git", "-C", setup.ROOT, "describe", "--always", "--dirty"]
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return f" ({done.stdout.strip()})" if done.returncode == 0 else ""


def _wrapped(head: str, words: str) -> str:
    words = words.encode("ascii", "backslashreplace").decode()
    indent = " " * len(head)
    return textwrap.fill(words, 99, initial_indent=head, subsequent_indent=indent)


if __name__ == "__main__":
    sys.exit(main())
