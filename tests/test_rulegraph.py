"""The picture of the rules in the README is that of the rules; `make rulegraph` draws it anew."""

import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
Arrows = set[tuple[str, str]]


def followed(names: dict[str, str], arrows: list[tuple[str, str]]) -> Arrows:
    """Every pair of rules of which the second needs the first, directly or through others."""
    pairs = {(names[a], names[b]) for a, b in arrows}
    while new := {(a, d) for a, b in pairs for c, d in pairs if b == c} - pairs:
        pairs |= new
    return pairs


def picture() -> tuple[set[str], Arrows]:
    """Rules and arrows of the SVG, in which a node's title is its number in the graph."""
    svg = unescape((ROOT / "docs/rulegraph.svg").read_text())
    names = dict(re.findall(r"<title>(\d+)</title>.*?<text [^>]*>(\w+)</text>", svg, re.S))
    return set(names.values()), followed(names, re.findall(r"<title>(\d+)->(\d+)</title>", svg))


@pytest.mark.workflow
def test_the_picture_of_the_rules_is_that_of_the_rules():
    command = [sys.executable, "-m", "snakemake", "--rulegraph"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = dict(re.findall(r'(\d+)\[label = "(\w+)"', done.stdout))
    assert "train_sae" in names.values()
    rules = set(names.values()), followed(names, re.findall(r"(\d+) -> (\d+)", done.stdout))
    assert picture() == rules, "docs/rulegraph.svg is stale: make rulegraph"


def test_the_readme_shows_the_picture():
    assert "](docs/rulegraph.svg)" in (ROOT / "README.md").read_text()
