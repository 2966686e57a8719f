"""What those who join read is true: every path, command, name and version exists."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from lottolab import cli
from lottolab.labs import needs
from lottolab.pages.site import plain_sphinx
from lottolab.reruns import execute
from lottolab.truth import claims, results

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
GUIDES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
GUIDES += [*FORMS, ROOT / ".github" / "pull_request_template.md"]
LISTED = [line for group in needs.groups().values() for line in group]
NEEDS = [Requirement(line) for line in LISTED]
EXAMPLE = {"<chapter>": "ownership", "<scale>": "laptop"}


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def workflow(name: str) -> dict:
    return yaml.safe_load(text(ROOT / ".github" / "workflows" / f"{name}.yml"))


def steps(name: str) -> list[dict]:
    return [step for job in workflow(name)["jobs"].values() for step in job["steps"]]


def code(path: Path) -> list[str]:
    """Return what a guide sets as code: lines of fenced blocks, and words between `."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text(path), re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```.*?^```", "", text(path), flags=re.DOTALL | re.MULTILINE)
    lines = [line.partition(" #")[0] for block in blocks for line in block.splitlines()]
    shown = re.findall(r"placeholder: (.*lottolab .*)", text(path))
    return lines + [" ".join(c.split()) for c in re.findall(r"`([^`]+)`", rest)] + shown


def commands() -> set[str]:
    """Return the calls of `lottolab` that guides and workflows show."""
    runs = [s["run"] for path in WORKFLOWS for s in steps(path.stem) if "run" in s]
    lines = [line for script in runs for line in script.splitlines()]
    lines += [line for path in GUIDES for line in code(path)]
    calls = (re.match(r"(?:python -m |\S*/)?lottolab ([a-z].*)", c) for c in lines)
    return {call[1].strip() for call in calls if call}


@pytest.mark.parametrize("call", sorted(commands()))
def test_a_command_and_its_options_exist(call, capfd):
    assert cli.main([*shlex.split(call), "--help"]) == 0, capfd.readouterr().err


def test_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", text(ROOT / "Makefile"), re.MULTILINE))
    called = {c.split()[1] for p in GUIDES for c in code(p) if c.startswith("make ")}
    assert called
    assert called <= targets


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_paths_and_links_exist(path):
    words = [c for c in code(path) if re.fullmatch(r"[\w.<>-]+/[\w.<>/-]+\.\w+", c)]
    words += re.findall(r"\]\(([^):]+)\)", text(path))
    for word in words:
        for mark, example in EXAMPLE.items():
            word = word.replace(mark, example)
        assert word.startswith("_build/") or (ROOT / word).exists(), word


def test_names_that_must_be_extended_stand_in_the_files_named():
    guide = " ".join(text(ROOT / "CONTRIBUTING.md").split())
    named = re.findall(r"`([A-Z]+)` of `([\w/]+\.py)`", guide)
    assert len(named) == 4
    for name, path in named:
        assert re.search(rf"^{name}\b.*=", text(ROOT / path), re.MULTILINE), name


def test_the_form_for_a_claim_asks_for_what_there_is():
    form = text(ROOT / ".github" / "ISSUE_TEMPLATE" / "claim.yml")
    asked = set(re.findall(r"`([a-z]+)`", form))
    assert {"fingerprint", "device", "versions"} <= asked <= set(results.STAGE)
    placeholder = re.search("placeholder: (ownership-.*)", form)[1]
    assert placeholder in {claim.id for claim in claims.load()}


@pytest.mark.parametrize(
    ("schema", "paths"), [("workflows", WORKFLOWS), ("issue-forms", FORMS)]
)
def test_schemas_that_need_no_network(schema, paths):
    tool = [sys.executable, "-m", "check_jsonschema"]
    tool += ["--builtin-schema", f"vendor.github-{schema}"]
    done = subprocess.run([*tool, *paths], capture_output=True, text=True)
    assert len(paths) == 3
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_an_end_few_rights_and_known_files(path):
    flow = workflow(path.stem)
    assert flow["permissions"] == {"contents": "read"}
    assert "group" in flow["concurrency"]
    assert all("timeout-minutes" in job for job in flow["jobs"].values())
    uses = [step["uses"] for step in steps(path.stem) if "uses" in step]
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", use) for use in uses)
    for name in re.findall(r"\b[\w-]+\.txt\b", text(path)):
        assert (ROOT / name).is_file(), name


def test_the_pythons_begin_where_the_project_does():
    matrix = workflow("test")["jobs"]["commands"]["strategy"]["matrix"]
    minors = [Version(python).minor for python in matrix["python"]]
    lowest = re.search(r'requires-python = ">=3\.(\d+)"', text(ROOT / "pyproject.toml"))
    assert minors == list(range(int(lowest[1]), minors[-1] + 1))
    assert matrix["include"][0]["python"] == matrix["python"][0]


def test_the_oldest_torch_is_the_one_that_is_allowed():
    script = next(s["run"] for s in steps("test") if "oldest" in s.get("if", ""))
    old, new = re.search(r"'s/(.*)/(.*)/'", script).groups()
    pinned = re.sub(old, new, text(ROOT / "pyproject.toml"))
    lines = re.findall(r'"(torch(?:vision)?==.*)"', pinned)
    oldest = {n.name: n.specifier for n in map(Requirement, lines)}
    assert set(oldest) == {"torch", "torchvision"}
    for need in NEEDS:
        if need.name in oldest:
            low = next(s.version for s in need.specifier if s.operator == ">=")
            assert Version(low) in oldest[need.name]


def test_the_published_folder_is_the_one_that_render_fills():
    upload = next(s for s in steps("pages") if "upload" in s.get("uses", ""))
    assert ROOT / upload["with"]["path"] == execute.build_folder("edition") / "html"


def test_plain_sphinx_is_installed_with_all_extensions_and_without_the_wrapper():
    script = next(s["run"] for s in steps("weekly") if "printf" in s.get("run", ""))
    dropped = re.search(r"'/(\"[\w>-]+)/d' pyproject.toml", script)[1]
    gone = re.findall(dropped + ".*", text(ROOT / "pyproject.toml"))
    assert [line.partition(">")[0] for line in gone] == ['"jupyter-book']
    given = plain_sphinx.settings(yaml.safe_load(text(ROOT / "_config.yml")))
    others = [name for name in given["extensions"] if "lottolab" not in name]  # ours
    wanted = {re.sub("[_.]", "-", name) for name in others}
    printed = shlex.split(script.split("printf '%s\\n'")[1].split(">> ")[0])
    assert {Requirement(word).name for word in printed if word.strip()} >= wanted


def test_the_one_installation_has_every_extra():
    (line,) = [n for n in text(ROOT / "requirements.txt").splitlines() if n[0] != "#"]
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", line)[1]
    assert extras.split(",") == [group for group in needs.groups() if group]
