"""Help and complaints about typos wait for nothing that they do not use."""

import json
import subprocess
import sys

import pytest
from typer.main import get_command

from lottolab import cli
from lottolab.pages import parameters

HEAVY = {"torch", "torchvision", "pandas", "numpy", "scipy", "sklearn", "matplotlib"}
HEAVY |= {"seaborn", "IPython", "nbformat", "papermill", "joblib", "safetensors"}
# What the child prints last: the exit code of each command line, and what it imported.
CHILD = """
import contextlib, io, json, sys
from lottolab import cli

told = []
for words in json.loads(sys.argv[1]):
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        code = cli.main(words)
    heavy = sorted(sys.modules.keys() & set(sys.argv[2].split()))
    told.append([code, err.getvalue(), heavy])
print(json.dumps(told))
"""


def commands(command, words=()):
    """List the words of every command and group, however deep."""
    found = [list(words)]
    for name, inner in getattr(command, "commands", {}).items():
        found += commands(inner, (*words, name))
    return found


def called(lines: list[list[str]]) -> list:
    """Return code, error and heavy imports after each of the command lines."""
    words = [sys.executable, "-c", CHILD, json.dumps(lines), " ".join(HEAVY)]
    place = parameters.BOOK.parent
    child = subprocess.run(words, capture_output=True, text=True, cwd=place)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout.splitlines()[-1])


@pytest.fixture
def every():
    cli._mount_rooms()
    found = commands(get_command(cli.app))
    assert ["ownership", "embed"] in found
    assert ["modelguard", "serve"] in found
    assert ["labs", "grade"] in found
    return found


def test_the_help_of_every_command_imports_nothing_heavy(every):
    lines = [[*words, "--help"] for words in every]
    for line, (code, err, heavy) in zip(lines, called(lines), strict=True):
        assert (code, err, heavy) == (0, "", []), line


def test_a_wrong_option_of_every_command_imports_nothing_heavy(every):
    lines = [[*words, "--xyzzy"] for words in every]
    for line, (code, err, heavy) in zip(lines, called(lines), strict=True):
        assert (code, heavy) == (2, []), line
        assert err.startswith("lottolab: "), line
        assert "--xyzzy" in err, line


TYPOS = {
    "rum": "did you mean run?",
    "ownershp": "did you mean ownership?",
    "ownership embd": "Did you mean 'embed'?",
    "labs bild": "Did you mean 'build'?",
    "labs pack ownershp": "did you mean ownership?",
    "modelguard serv": "Did you mean 'serve'?",
    "ownership embed net.safetensors --txet a": "--text",
    "run ownershp": "did you mean ownership",
    "run ownership --scael smoke": "--scale",
    "run ownership --scale smok": "did you mean smoke?",
    "run ownership --scale smok --dry-run": "did you mean smoke?",
    "run --all --scale papr": "did you mean paper?",
    "run ownership -p epoch=2": "did you mean epochs",
    "run ownership -p rounds=2.5": "rounds must be int",
    "run ownership -p rounds=2.5 --dry-run": "rounds must be int",
    "run ownership -p rounds": "NAME=VALUE",
    "run ownership -p scale=smoke": "--scale",
    "run ownership --name a/b": "a run's name must be",
    "book --scale papr": "did you mean paper?",
    "rehearse ownershp": "did you mean ownership",
    "rehearse --scale papr": "did you mean paper?",
    "sweep ownershp -p rounds=1,2": "did you mean ownership",
    "sweep ownership -p round=1,2": "did you mean rounds",
    "sweep ownership -p rounds=1,b": "rounds must be int",
    "sweep ownership -p rounds=1,2 --scale smok": "did you mean smoke?",
    "sweep ownership -p rounds=1,2 --where arm": "COLUMN=VALUES",
    "sweep ownershp -p epsilon=1,2 --stage served": "did you mean ownership",
}


def test_a_typo_is_told_at_every_level_and_imports_nothing_heavy():
    told = called([line.split() for line in TYPOS])
    for (line, part), (code, err, heavy) in zip(TYPOS.items(), told, strict=True):
        assert (code, heavy) == (2, []), line
        assert part in err, line
        assert len(err.splitlines()) == 1, line
