"""What a parameters cell says is what is enforced, before anything runs."""

import ast
import json
import math

import pytest
import yaml

from lottolab.pages import parameters
from lottolab.truth.claims_file import CHAPTERS

CELL = """\
# A comment of its own says nothing about a parameter.
count: int = 3  # how many; in [1, 5]
rate: float = 0.5  # a share; in (0, 1)
half: float = 1  # in [0, inf)
stem: str = "same"  # the first layer; one of same, stride2
power: int = 2  # one of 2, 4
flip: bool = True  # mirror half of the images
seeds: list[int] = [0, 1]  # a run each; in [0, 9]
sizes: list[float] = [  # on several lines
    1, 2.5,
]  # in (0, 10]
arms: list[str] = ["a"]  # one of a, b
free: int = -7  # without a range
"""


@pytest.fixture(scope="module")
def cell():
    return parameters.parse_cell(CELL)


def test_a_cell_is_read(cell):
    kinds = {name: p.kind for name, p in cell.items()}
    assert kinds == {
        "count": "int",
        "rate": "float",
        "half": "float",
        "stem": "str",
        "power": "int",
        "flip": "bool",
        "seeds": "list[int]",
        "sizes": "list[float]",
        "arms": "list[str]",
        "free": "int",
    }
    assert cell["sizes"].default == [1, 2.5]
    assert cell["count"].comment == "how many; in [1, 5]"
    assert cell["sizes"].comment == "in (0, 10]"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "1", 1),
        ("count", "5", 5),
        ("rate", "1e-9", 1e-9),
        ("half", "0", 0.0),
        ("half", "1e300", 1e300),
        ("stem", "stride2", "stride2"),
        ("power", "4", 4),
        ("flip", "False", False),
        ("seeds", "[9]", [9]),
        ("seeds", "(3, 2)", [3, 2]),
        ("sizes", "[10, 0.1]", [10.0, 0.1]),
        ("arms", "['b', 'a']", ["b", "a"]),
        ("free", "-1000000", -1000000),
    ],
)
def test_what_is_allowed_is_returned(cell, name, text, value):
    found = cell[name].parse(text)
    assert found == value
    assert repr(found) == repr(value)  # a whole number for a float becomes one


@pytest.mark.parametrize("name", ["count", "rate", "stem", "seeds", "sizes", "flip"])
def test_a_checked_value_stays_what_it_is(cell, name):
    once = cell[name].check(cell[name].default)
    assert repr(cell[name].check(once)) == repr(once)


@pytest.mark.parametrize(
    ("name", "text", "allowed", "got"),
    [
        ("count", "0", "[1, 5]", "0"),
        ("count", "6", "[1, 5]", "6"),
        ("rate", "0", "(0, 1)", "0.0"),
        ("rate", "1", "(0, 1)", "1.0"),
        ("half", "-1e-9", "[0, inf)", "-1e-09"),
        ("half", "1e999", "[0, inf)", "inf"),  # which Python reads as infinity
        ("seeds", "[0, 10]", "[0, 9]", "10"),
        ("seeds", "[-1, 0]", "[0, 9]", "-1"),
        ("sizes", "[0]", "(0, 10]", "0.0"),
        ("sizes", "[1, 10.01]", "(0, 10]", "10.01"),
        ("stem", "strid2", "same, stride2", "'strid2'"),
        ("power", "3", "2, 4", "3"),
        ("arms", "['a', 'c']", "a, b", "'c'"),
    ],
)
def test_what_is_out_of_range_is_refused(cell, name, text, allowed, got):
    with pytest.raises(ValueError, match=f"^{name} must be ") as caught:
        cell[name].parse(text)
    assert f"{allowed}, got {got}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("count", "1e3"),
        ("count", "2.0"),
        ("count", "True"),
        ("count", "None"),
        ("count", "[2]"),
        ("count", ""),
        ("count", "two"),
        ("count", "1 +"),
        ("count", "__import__('os').getpid()"),
        ("count", "{[]: 1}"),
        ("count", "-" * 4000 + "1"),
        ("rate", "True"),
        ("rate", "nan"),
        ("flip", "1"),
        ("flip", "true"),
        ("seeds", "3"),
        ("seeds", "[]"),
        ("seeds", "[0, 1.5]"),
        ("seeds", "[0, True]"),
        ("seeds", "{0, 1}"),
        ("seeds", "'01'"),
        ("arms", "a"),
        ("arms", "[1]"),
    ],
)
def test_another_type_is_refused(cell, name, text):
    with pytest.raises(ValueError, match="must be") as caught:
        cell[name].parse(text)
    message, p = str(caught.value), cell[name]
    assert message.startswith(f"{name} must be {p.kind}, such as {name}=")
    example, got = message.split(f"such as {name}=")[1].split(", got ")
    shown = ast.literal_eval(got)
    assert shown == text or shown == ast.literal_eval(text)
    assert p.parse(example) == p.check(p.default)  # the advice itself is valid


@pytest.mark.parametrize(
    "line",
    [
        "count = 3  # no type",
        "count: int = 3",
        "count: int  # no value",
        "count: int = 1 + 1  # computed",
        "count: int = other  # a name",
        "count: float = float('nan')  # a call",
        "print('hello')  # a call",
        "import os  # an import",
        "count: int = (3  # not closed",
        "count: int = = 3  # not Python",
        "def f():  # not closed",
        '    count: int = 3  # "indented"',
    ],
)
def test_a_line_that_is_no_typed_literal_is_refused(line):
    with pytest.raises(ValueError, match="name: type = literal") as caught:
        parameters.parse_cell(f"first: int = 1  # in [0, 1]\n{line}\n")
    code = line.split("  #")[0].strip()
    assert code[:6] in str(caught.value)
    assert "object at 0x" not in str(caught.value)


@pytest.mark.parametrize("kind", ["integer", "list", "list[list[int]]", "dict"])
def test_an_unknown_type_is_refused(kind):
    with pytest.raises(ValueError, match="the type of x must be one of") as caught:
        parameters.parse_cell(f"x: {kind} = 1  # in [0, 1]")
    assert "list[int]" in str(caught.value)
    assert kind in str(caught.value)


@pytest.mark.parametrize(
    "line", ["x: int = 3  # in [0, 2]", "x: int = 2.5  # a", "x: str = 'c'  # one of a"]
)
def test_a_default_is_checked_too(line):
    with pytest.raises(ValueError, match="x must be"):
        parameters.parse_cell(line)


# A book of one chapter, and the committed one.


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Make a book whose chapter `first` has the parameters of CELL."""
    folder = tmp_path / "book"
    (folder / "scales" / "smoke").mkdir(parents=True)
    monkeypatch.setattr(parameters, "BOOK", folder)
    toc = {"format": "jb-book", "root": "book/intro"}
    toc["chapters"] = [{"file": f"book/{n}"} for n in ("second", "first", "words")]
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc))
    for name, cells in {"first": [CELL], "second": [CELL, CELL]}.items():
        cells = [{"source": [c], "metadata": {"tags": ["parameters"]}} for c in cells]
        cells.append({"source": ["pass"], "metadata": {}})
        (folder / f"{name}.ipynb").write_text(json.dumps({"cells": cells}))
    (folder / "words.md").write_text("# Words")
    (folder / "scales/smoke/first.yaml").write_text("count: 1\nrate: 0.25\nhalf: 2\n")
    return folder


def test_chapters_are_the_notebooks_in_the_order_of_the_contents(tiny):
    assert parameters.chapters() == ["second", "first"]
    assert parameters.scales("first") == ["laptop", "smoke"]
    assert parameters.scales("second") == ["laptop"]


def test_given_values_win_over_the_scale(tiny):
    assert parameters.resolve("first", "laptop", {}) == {}
    small = parameters.resolve("first", "smoke", {})
    assert small == {"count": 1, "rate": 0.25, "half": 2.0}
    assert isinstance(small["half"], float)
    given = {"count": "2", "stem": "stride2", "seeds": [4]}
    assert parameters.resolve("first", "smoke", given) == {
        **{"count": 2, "rate": 0.25, "half": 2.0},
        **{"stem": "stride2", "seeds": [4]},
    }


def test_an_empty_scale_file_changes_nothing(tiny):
    (tiny / "scales/smoke/first.yaml").write_text("# as on a laptop\n")
    assert parameters.resolve("first", "smoke", {}) == {}


@pytest.mark.parametrize(
    ("chapter", "scale", "given", "close"),
    [
        ("frist", "laptop", {}, "first"),
        ("first", "smok", {}, "smoke"),
        ("first", "laptop", {"cuont": "2"}, "count"),
        ("first", "laptop", {"stem": "strid2"}, "stride2"),
    ],
)
def test_a_misspelt_name_gets_the_closest(tiny, chapter, scale, given, close):
    with pytest.raises(ValueError, match=f"did you mean .*{close}") as caught:
        parameters.resolve(chapter, scale, given)
    wrong = [*given.values(), *given, chapter, scale]
    assert any(repr(word) in str(caught.value) for word in wrong)


@pytest.mark.parametrize(
    "line", ["coun: 1", "count: 9", "count: '2'", "rate: 1e-4", "seeds: 1"]
)
def test_a_scale_file_is_checked_like_a_command_line(tiny, line):
    (tiny / "scales/smoke/first.yaml").write_text(line)
    with pytest.raises(ValueError, match="must be"):
        parameters.resolve("first", "smoke", {})


def test_two_parameters_cells_are_refused(tiny):
    with pytest.raises(ValueError, match=r"second must have one .* got 2"):
        parameters.of("second")


SCALES = sorted(parameters.BOOK.glob("scales/*/*.yaml"))


@pytest.mark.parametrize("path", SCALES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_a_committed_scale_file_resolves(path):
    written = yaml.safe_load(path.read_text())
    values = parameters.resolve(path.stem, path.parent.name, {})
    told = {"scale": path.parent.name} if "scale" in parameters.of(path.stem) else {}
    assert values == written | told
    assert written


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_edition_is_the_laptops_with_ten_seeds_and_more_test_images(chapter):
    own = parameters.resolve(chapter, "edition", {})
    assert own.keys() - {"scale"} <= {"seeds", "test", "fresh"}
    known = parameters.of(chapter)
    assert len(set(own["seeds"])) >= 10 > len(known["seeds"].default)
    for name in own.keys() & {"test", "fresh"}:
        assert own[name] >= 4 * known[name].default
    if "models" in known:  # what is asked of a whole pool needs pools
        assert len({s // known["models"].default for s in own["seeds"]}) >= 3


def test_every_chapter_has_a_smoke_scale():
    for chapter in parameters.chapters():
        assert "smoke" in parameters.scales(chapter), chapter


@pytest.mark.parametrize("chapter", parameters.chapters())
def test_every_number_of_a_committed_chapter_is_bounded(chapter):
    for p in parameters.of(chapter).values():
        if "int" not in p.kind and "float" not in p.kind:
            continue
        wild = [math.inf] if "float" in p.kind else [-(10**12), 10**12]
        for value in wild:
            with pytest.raises(ValueError, match="must be"):
                p.check([value] if p.kind.startswith("list") else value)
