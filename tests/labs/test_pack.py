"""A chapter's zip stands alone: it holds all, asks for little, and says how much."""

import ast
import re
import sys
from pathlib import Path

import alone
import grimp
import nbformat
import pytest
from nbformat.v4 import new_code_cell

from lottolab import cli
from lottolab.labs import needs, pack
from lottolab.pages import parameters
from lottolab.truth.claims_file import CHAPTERS

FIRST = 6  # code cells of chapter 4, which compute no stage


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("lottolab", include_external_packages=True)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("packs")


def code(path: Path) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


def reached(graph, cells: list[str]) -> set[str]:
    """Return the modules that cells import, and those that these import."""
    names = set()
    for node in (n for cell in cells for n in ast.walk(ast.parse(cell))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    ours = {name for name in names if name in graph.modules}
    for name in [name for name in names if name.startswith("lottolab")]:
        parts = name.split(".")
        above = [".".join(parts[:i]) for i in range(1, len(parts) + 1)]
        ours |= {module for module in above if module in graph.modules}
    found = ours.union(*(graph.find_upstream_modules(module) for module in ours))
    return found | {name for name in names if not name.startswith("lottolab")}


def foreign(modules: set[str]) -> set[str]:
    tops = {module.partition(".")[0] for module in modules}
    return tops - {"lottolab"} - set(sys.stdlib_module_names)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_imports_what_its_zip_asks_for(graph, output, tmp_path, name):
    place = alone.unpacked(pack.chapter(output, name), tmp_path)
    asked = alone.asked(place)
    wanted = foreign(reached(graph, code(place / f"book/{name}.ipynb")))
    assert {"torch", "pandas", "matplotlib", "yaml"} <= wanted
    assert wanted <= alone.there(asked)
    core = alone.there(needs.groups()[""])
    assert ("fastapi" in wanted - core) == (name == "modelguard")
    spare = {"nbgrader", "distributed", "pytest", "sphinx", "playwright"}
    assert not spare & alone.there(asked)
    assert not list(place.rglob("labs/source"))  # no solution


def test_a_chapter_starts_alone_and_offline(output, tmp_path):
    place = alone.unpacked(pack.chapter(output, "modelguard"), tmp_path)
    env = alone.environment(place, tmp_path, ours=True)
    page = nbformat.read(place / "book/modelguard.ipynb", as_version=4)
    cells = [cell for cell in page.cells if cell.cell_type == "code"][:FIRST]
    before = [alone.said(cell) for cell in cells]
    smoke = parameters.resolve("modelguard", "smoke", {})
    given = "\n".join(f"{key} = {value!r}" for key, value in smoke.items())
    where = "import lottolab, fastapi\nprint(lottolab.__file__)"
    mine = [new_code_cell(text) for text in (alone.NOTHING_ELSE, given, where)]
    page.cells = [mine[0], cells[0], *mine[1:], *cells[1:]]
    alone.execute(page, place / "book", env)
    assert [alone.said(cell) for cell in mine[::2]] == [
        "nothing else\n",
        f"{place / 'lottolab/__init__.py'}\n",
    ]
    assert not [
        out for c in page.cells for out in c.outputs if out.output_type == "error"
    ]
    checked = [
        i for i, c in enumerate(cells) if "nbval-check-output" in str(c.metadata)
    ]
    assert len(checked) == 2
    for i in checked:
        assert alone.said(cells[i]) == before[i] != ""


def test_what_is_missing_is_one_line(tmp_path, monkeypatch, capfd):
    for name in [n for n in sys.modules if n.partition(".")[0] == "dask"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dask", None)
    call = ["sweep", "ownership", "-p", "epochs=1,2", "--scale", "smoke"]
    call += ["--scheduler", "tcp://127.0.0.1:1", "--output", str(tmp_path)]
    assert cli.main(call) == 1
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("lottolab: this needs dask, which is not installed; in ")
    assert line.endswith(": pip install -e '.[sweeps]'")


def test_a_chapter_that_is_none_is_refused(tmp_path, capfd):
    assert cli.main(["labs", "pack", "ownershp", "--output", str(tmp_path)]) == 2
    assert "did you mean ownership?" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_readme_says_what_it_takes(output, tmp_path):
    place = alone.unpacked(pack.chapter(output, "ensembles"), tmp_path)
    text = (place / "README.txt").read_text("utf-8")
    told = float(re.search(r"It takes ([\d.]+) GB of disk", text)[1])
    assert told * 1000 == pytest.approx(
        needs.megabytes(alone.asked(place), ["torch"]), abs=5
    )
    for part in (
        "Python 3.11",
        "torch takes 0.7 GB",
        "pip install -r requirements.txt",
    ):
        assert part in text
    notebook = re.search(r"jupyter lab (\S+)", text)[1]
    assert (place / notebook).is_file()
    assert max(map(len, text.splitlines())) <= 88


def test_megabytes_are_those_on_disk(tmp_path):
    (site := tmp_path / "site").mkdir()
    sizes = {"one": 3_000_000, "two": 5_000_000, "three": 7_000_000}
    for name, size in sizes.items():
        (site / f"{name}.bin").write_bytes(bytes(size))
        info = site / f"{name}-1.dist-info"
        info.mkdir()
        more = {
            "one": "Requires-Dist: two\n",
            "two": "Requires-Dist: three; extra == 'x'\n",
        }
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{more.get(name, '')}"
        (info / "METADATA").write_text(head)
        (info / "RECORD").write_text(f"{name}.bin,,{size}\n{name}.gone,,\n")
    asked = {"one": 8, "two": 5, "two[x]": 12, "elsewhere": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        assert {line: needs.megabytes([line]) for line in asked} == asked
        assert needs.megabytes(["one", "three"], without=["two"]) == 10


def test_a_lab_that_imports_what_is_not_listed_is_not_packed():
    assert needs.lines(["import numpy, os"], also=["jupyterlab"]) == [
        line
        for line in needs.groups()["jupyter"] + needs.groups()[""]
        if re.match("(jupyterlab|numpy)>", line)
    ]
    with pytest.raises(LookupError, match=r"pyproject.toml does not list tensorflow"):
        needs.lines(["from tensorflow.keras import layers"])


def test_what_the_package_imports_is_listed_or_an_extra_brings_it(graph):
    wanted, core = foreign(graph.modules), alone.there(needs.groups()[""])
    left = {name for name in wanted - core if needs.extra(name) is None}
    # They come with fastapi, nbgrader, the book's Sphinx, and are asked for with it.
    assert left <= {"starlette", "pydantic", "sphinx", "docutils", "traitlets"}
