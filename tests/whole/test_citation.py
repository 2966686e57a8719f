"""What is cited is what there is: one version, one date, each claim's fate."""

import re
import tomllib
from datetime import date
from pathlib import Path

import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import Draft7Validator

from lottolab.truth import claims

ROOT = Path(__file__).parents[2]
CITATION = ROOT / "CITATION.cff"
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
EDITION = re.compile(r"^## ([\d.]+): .*\((\d{4}-\d\d-\d\d)\)$", re.MULTILINE)


def faults(text: str) -> list[str]:
    """Hold a citation against the published schema of such files, offline."""
    schema = get_builtin_schema("vendor.citation-file-format")
    # a date is a string to the schema, and to this loader
    entry = yaml.load(text, yaml.BaseLoader)
    return [error.message for error in Draft7Validator(schema).iter_errors(entry)]


def test_the_citation_keeps_to_its_schema():
    assert faults(CITATION.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("line", ["date-released: soon", "licence: MIT", "type: book"])
def test_the_schema_sees_a_broken_citation(line):
    kept = CITATION.read_text(encoding="utf-8").splitlines()
    rest = [k for k in kept if k.partition(":")[0] != line.partition(":")[0]]
    assert faults("\n".join([*rest, line])) != []


def test_version_and_date_are_the_newest_editions():
    cited = yaml.safe_load(CITATION.read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    newest, day = EDITION.search(CHANGELOG).groups()
    assert cited["version"] == project["version"] == newest
    assert cited["date-released"] == date.fromisoformat(day)
    assert cited["license"] == project["license"]["text"]


def test_every_edition_tells_of_its_verdicts():
    editions = re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]
    assert len(editions) > 1
    for edition in editions:
        assert re.search(r"^### Verdicts", edition, re.MULTILINE), edition[:40]


def test_claims_that_changed_their_verdict_exist_and_say_why():
    known = {claim.id for claim in [*claims.load(), *claims.withdrawn()]}
    follows = {(claim.replaces, claim.id) for claim in claims.load()}
    rows = re.findall(
        r"^\| (.+) \| (.+) \| (.+) \| (`.+`) \|$", CHANGELOG, re.MULTILINE
    )
    verdicts = {claims.REPRODUCED, claims.REFUTED, claims.INCONCLUSIVE, "partly"}
    verdicts.add(claims.NOT_TESTABLE)
    assert len(rows) > 8
    for why, before, after, named in rows:
        assert len(why.split()) > 1
        assert {before, after} <= verdicts
        assert {*re.findall(r"`([^`]+)`", named)} <= known
        assert {*re.findall(r"`([^`]+)`, now `([^`]+)`", named)} <= follows
