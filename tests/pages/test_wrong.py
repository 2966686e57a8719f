"""The page on the first edition's mistakes names claims and pages that exist."""

import re

import yaml

from lottolab.machine import setup
from lottolab.truth import claims

PAGE = (setup.ROOT / "book" / "wrong.md").read_text(encoding="utf-8")
MOST_WORDS = 1800
ID = r"`([a-z]+-[\w-]+)`"
FOLLOWED = rf"{ID} → {ID}"


def test_a_claim_that_is_said_to_follow_another_does():
    gone = {claim.id for claim in claims.withdrawn()}
    follows = {(claim.replaces, claim.id) for claim in claims.load()}
    told = re.findall(FOLLOWED, PAGE)
    assert len(told) > 8
    assert {old for old, _ in told} <= gone
    assert set(told) <= follows


def test_a_claim_that_is_said_to_stand_is_not_withdrawn():
    """Where this fails a claim was mended: say in `book/wrong.md` what became of it."""
    standing = re.findall(ID, re.sub(FOLLOWED, "", PAGE))
    assert len(standing) > 3
    assert set(standing) <= {claim.id for claim in claims.load()}


def test_links_lead_to_pages_of_the_book():
    toc = yaml.safe_load((setup.ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = {entry["file"] for entry in toc["chapters"]}
    assert "book/wrong" in pages
    links = re.findall(r"\]\(([^)]+)\)", PAGE)
    assert len(links) > 8
    for link in links:
        assert (setup.ROOT / "book" / link).is_file(), link
        assert f"book/{link.partition('.')[0]}" in pages, link


def test_the_intro_leads_there():
    intro = (setup.ROOT / "book" / "intro.md").read_text(encoding="utf-8")
    assert "](wrong.md)" in intro


def test_it_is_read_at_one_sitting():
    assert len(PAGE.split()) <= MOST_WORDS
