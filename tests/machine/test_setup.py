"""The first command sets up `.venv` once, and says what to do where it cannot."""

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import lottolab
from lottolab.machine import setup

PACKAGE = Path(lottolab.__file__).parent


class Calls:
    """Stand for `subprocess.call`: note what is called, fail where told to."""

    def __init__(self, root: Path) -> None:
        self.root, self.all, self.fails = root, [], set()
        self.python = root / ".venv/bin/python"
        self.pip = False  # whether the venv has one

    def __call__(self, command, cwd=None, **options) -> int:
        words = [str(word) for word in command]
        kind = self.kind(words)
        if kind == "probe":
            return int(not self.pip)
        self.all.append((kind, words, cwd))
        if kind == "venv":  # which makes a Python even where pip cannot be had
            self.python.parent.mkdir(parents=True, exist_ok=True)
            self.python.touch()
            self.pip = kind not in self.fails
        return int(kind in self.fails)

    @staticmethod
    def kind(words: list[str]) -> str:
        if words[1:3] == ["-m", "venv"]:
            return "venv"
        if words[1:3] == ["-m", "pip"]:
            return "pip" if words[3] == "install" else "probe"
        assert words[1:] == ["-c", "import pyzbar.pyzbar"]
        return "zbar"

    def kinds(self) -> list[str]:
        """Return what was called since this was last asked."""
        kinds = [kind for kind, _, _ in self.all]
        self.all.clear()
        return kinds


@pytest.fixture
def calls(tmp_path, monkeypatch):
    root = tmp_path / "a folder with spaces"
    root.mkdir()
    for name in ("requirements.txt", "pyproject.toml"):
        (root / name).write_text(f"# {name}\n")
    monkeypatch.setattr(setup.os, "name", "posix")
    calls = Calls(root)
    monkeypatch.setattr(subprocess, "call", calls)
    return calls


def test_the_first_call_installs_everything_at_once(calls, capsys):
    assert setup.ready(calls.root) == str(calls.python)
    (venv, made, _), (pip, installed, cwd), (zbar, asked, _) = calls.all
    assert (venv, pip, zbar) == ("venv", "pip", "zbar")
    assert made == [sys.executable, "-m", "venv", str(calls.root / ".venv")]
    assert installed[0] == asked[0] == str(calls.python)
    assert installed[-2:] == ["-r", "requirements.txt"]
    assert cwd == calls.root
    assert str(calls.root / ".venv") in capsys.readouterr().out


def test_the_second_call_does_nothing_and_says_nothing(calls, capsys):
    setup.ready(calls.root)
    calls.kinds()
    capsys.readouterr()
    assert setup.ready(calls.root) == str(calls.python)
    assert calls.kinds() == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["requirements.txt", "pyproject.toml"])
def test_what_is_required_now_is_installed(calls, name):
    setup.ready(calls.root)
    calls.kinds()
    (calls.root / name).write_text("torch>=3\n")
    setup.ready(calls.root)
    assert calls.kinds() == ["pip", "zbar"]
    setup.ready(calls.root)
    assert calls.kinds() == []


def test_another_python_or_folder_installs_again(calls, monkeypatch):
    setup.ready(calls.root)
    calls.kinds()
    monkeypatch.setattr(sys, "version", "3.99.0")
    setup.ready(calls.root)
    assert "pip" in calls.kinds()

    moved = calls.root.with_name("moved")
    calls.root.rename(moved)
    calls.root, calls.python = moved, moved / ".venv/bin/python"
    assert setup.ready(moved) == str(calls.python)
    assert "pip" in calls.kinds()


def test_a_python_that_was_removed_is_made_again(calls):
    setup.ready(calls.root)
    calls.kinds()
    calls.python.unlink()
    setup.ready(calls.root)
    assert calls.kinds() == ["venv", "pip", "zbar"]


@pytest.mark.parametrize("earlier", [False, True])
def test_a_pip_that_failed_is_tried_again(calls, earlier):
    if earlier:
        setup.ready(calls.root)
        (calls.root / "requirements.txt").write_text("torch>=3\n")
    calls.fails = {"pip"}
    with pytest.raises(SystemExit) as stopped:
        setup.ready(calls.root)
    assert "requirements.txt" in stopped.value.code
    assert "same command again" in stopped.value.code
    assert not (calls.root / ".venv/installed").exists()
    calls.fails = set()
    calls.kinds()
    setup.ready(calls.root)
    assert calls.kinds() == ["pip", "zbar"]


def test_a_missing_venv_is_told_with_the_package_and_then_made(calls):
    calls.fails = {"venv"}
    with pytest.raises(SystemExit) as stopped:
        setup.ready(calls.root)
    assert "sudo apt install python3-venv" in stopped.value.code
    assert calls.kinds() == ["venv"]
    calls.fails = set()  # the reader installed it; the Python without pip is there
    setup.ready(calls.root)
    assert calls.kinds() == ["venv", "pip", "zbar"]


def test_a_missing_zbar_is_told_for_every_system(calls, capsys):
    calls.fails = {"zbar"}
    assert setup.ready(calls.root) == str(calls.python)
    out = capsys.readouterr().out
    for words in ("apt install libzbar0", "dnf install zbar", "brew install zbar"):
        assert words in out
    assert "Windows" in out
    calls.kinds()
    setup.ready(calls.root)
    assert calls.kinds() == []


def test_windows_has_its_python_elsewhere(calls, monkeypatch):
    monkeypatch.setattr(setup.os, "name", "nt")
    calls.python = calls.root / ".venv/Scripts/python.exe"
    assert setup.ready(calls.root) == str(calls.python)
    setup.ready(calls.root)
    assert calls.kinds() == ["venv", "pip", "zbar"]


@pytest.mark.parametrize(
    "name",
    ["__init__", "__main__", "machine/__init__", "machine/settle", "machine/setup"],
)
def test_nothing_that_must_be_installed_is_imported(name):
    tree = ast.parse((PACKAGE / f"{name}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module]
            if node.module == "lottolab.machine":
                assert name == "__main__"
                assert {n.name for n in node.names} == {"settle", "setup"}
                continue
        else:
            continue
        for module in modules:
            assert module.split(".")[0] in sys.stdlib_module_names


def test_an_older_python_is_refused_before_anything_is_imported():
    body = ast.parse((PACKAGE / "__main__.py").read_text()).body
    check = next(i for i, n in enumerate(body) if isinstance(n, ast.If))
    assert "sys.version_info < (3, 11)" in ast.unparse(body[check].test)
    ours = [i for i, n in enumerate(body) if "lottolab" in ast.unparse(n)]
    assert next(i for i in ours if isinstance(body[i], ast.ImportFrom)) > check
    assert "{}.{}" in ast.unparse(body[check])
    # what an old Python must be able to read at least
    ast.parse((PACKAGE / "__main__.py").read_text(), feature_version=(3, 7))


def test_the_package_installs_from_a_path_with_braces_and_foreign_letters(tmp_path):
    root = tmp_path / "a {b} ${HOME} é 日本"
    root.mkdir()
    for name in ("pyproject.toml", "README.md", "requirements.txt"):
        shutil.copy(setup.ROOT / name, root)
    shutil.copytree(setup.ROOT / "lottolab/checks", root / "lottolab/checks")
    with open(setup.ROOT / "pyproject.toml", "rb") as file:
        backend = tomllib.load(file)["build-system"]["build-backend"]
    build = f"import {backend} as backend; print(backend.build_editable('.'))"
    command = [sys.executable, "-c", build]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(root / done.stdout.split()[-1]) as wheel:
        (path,) = [name for name in wheel.namelist() if name.endswith(".pth")]
        assert wheel.read(path).decode().strip() == str(root)
