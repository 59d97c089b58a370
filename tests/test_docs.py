"""The documentation: what is made from the code is up to date, every link leads somewhere, and CI runs the
README's commands."""

import csv
import json
import re

import pytest
import yaml

import generate
from deeper_layers import __version__
from helpers.config import ROOT

PAIR = r"\d+\.\d{3} ± \d+\.\d{3}"
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "benchmarks/README.md", *(ROOT / "docs").glob("*.md")])


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for link in links:
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("name", generate.FILES)
def test_what_is_made_from_the_code_is_up_to_date(name):
    assert (ROOT / name).read_text() == generate.FILES[name](), "run make docs"


def measured(table: str) -> set[str]:
    """Every value with a standard error of a table, as pages write it."""
    with open(ROOT / "docs/figures" / table, newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = [name for name in rows[0] if f"{name}_stderr" in rows[0]]
    return {f"{float(row[m]):.3f} ± {float(row[f'{m}_stderr']):.3f}" for row in rows for m in metrics}


def test_what_is_told_of_smollm2_is_in_its_table():
    page, readme = (ROOT / "docs/smollm2.md").read_text(), (ROOT / "README.md").read_text()
    told = re.findall(PAIR, page), re.findall(PAIR, readme)
    assert len(told[0]) > 60 and len(told[1]) >= 5
    assert {value for values in told for value in values} <= measured("smollm2-table.csv")


def test_what_is_told_of_the_methods_is_in_their_table():
    told = re.findall(PAIR, (ROOT / "docs/comparison.md").read_text())
    assert len(told) > 90 and set(told) <= measured("methods-table.csv")


def test_the_readmes_setup_commands_are_run_by_ci():
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci/run").read_text().splitlines()
    commands = re.findall(r"^(make \w+)", readme, re.MULTILINE)
    assert commands == ["make demo", "make test"] and set(commands) <= set(ci)


def test_ci_and_the_citation_are_of_this_repository():
    """The CI host runs .ci/run with the Python of the environments; CITATION.cff has the version of the
    library and the title of the paper that README.md cites."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text())
    *_, python, command = workflow["jobs"]["run"]["steps"]
    assert command == {"run": ".ci/run"} and python["with"]["python-version"] == "3.11"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert f"{{{citation['references'][0]['title']}}}" in (ROOT / "README.md").read_text()


def test_the_page_on_serving_has_the_figures_of_the_benchmark():
    measured = json.loads((ROOT / "benchmarks/results.json").read_text())["serving"]["rows"]
    rows, page = {row["what"]: row for row in measured}, (ROOT / "docs/serving.md").read_text()
    line = r"^\| (\w[^|]*) \| (\d+) \| (\d+) \| (\d+) \| ([\d.]+) \|$"
    lines = re.findall(line, page, re.MULTILINE)
    assert len(lines) == 9
    for what, *values in lines:
        row = rows[what]
        found = (f"{row[key]:.0f}" for key in ("size_mb", "peak_mb", "prompt"))
        assert values == [*found, f"{row['writing']:.1f}"]
