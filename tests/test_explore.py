"""The page to explore the results, opened in a headless browser: what it shows is what the table says."""

import itertools
import json
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from deeper_layers.reporting.explore import page
from deeper_layers.study import code_hash
from helpers.browser import Browser
from helpers.config import ROOT

LAYERS = {"small": 8, "large": 40}
LEVELS = pd.DataFrame(
    [(model, *row) for model in LAYERS for row in [("quiz", "chance", 0.25), ("loss", "chance", 9.0)]]
    + [(model, "coin", "chance", 0.5) for model in LAYERS],
    columns=["model", "metric", "level", "value"],
)


def cut(model, strategy, n, treatment) -> dict:
    """A row of a table: the deeper the worse, healed better, the first strategy best."""
    loss = 2 + 0.1 * n * (1 if treatment == "pruned" else 0.5) + 0.03 * (strategy == "deepest") * n
    quiz = 0.9 - 0.01 * n * (1 + 2 * (strategy == "deepest") + (treatment == "pruned"))
    first = 1 if strategy == "similarity" else LAYERS[model] - 1 - n
    return {
        **{"model": model, "strategy": strategy, "n": n, "treatment": treatment},
        **{"block": f"drop_{first}-{first + n - 1}" if n else "full", "n_layers": LAYERS[model]},
        **{"fraction_removed": n / LAYERS[model], "parameters": 1_000_000, "bytes": 4_000_000},
        **{"quiz": quiz, "quiz_stderr": 0.02, "coin": 0.51, "coin_stderr": 0.02},
        **{"loss": loss, "loss_stderr": 0.05},
        **{"normalised_loss": loss / 9, "normalised_loss_stderr": 0.05 / 9},
    }


def rows(ns, models=("small",), strategies=("similarity", "deepest"), treatments=("pruned", "healed")):
    keys = itertools.product(models, strategies, ns, treatments)
    return pd.DataFrame([cut(*key) for key in keys if key[2] or key[3] == "pruned"])


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser"), 1280, 800) as browser:
        yield browser


@pytest.fixture
def shown(browser, tmp_path):
    """Opens the page of a table; at the end nothing was asked of a network and no error was reported."""

    def show(table: pd.DataFrame, levels: pd.DataFrame = LEVELS) -> pd.DataFrame:
        (tmp_path / "explore.html").write_text(page(table, levels, "snakemake export --configfile my.yaml"))
        browser.open(tmp_path / "explore.html")
        browser.wait("!!document.querySelector('#chart svg')")
        return table

    browser.requests.clear()
    yield show
    assert browser.errors == [] and len(browser.requests) > 0
    assert all(url.startswith(("file:", "data:", "blob:")) for url in browser.requests)


def marks(browser, kind: str = "symbol") -> list[str]:
    """What the chart says of its points, or of another kind of marks; the last to be drawn is the ring."""
    found = f"[...document.querySelectorAll('#chart g.mark-{kind} > *')]"
    return browser.run(f"{found}.map(mark => mark.ariaLabel).filter(Boolean)")


def points(browser) -> set[tuple[str, ...]]:
    """(n, strategy, treatment) of each point."""
    found = (re.findall(r"(?:n|strategy|treatment): ([\w-]+)", mark) for mark in marks(browser))
    return {tuple(parts) for parts in found if len(parts) == 3}


def expected(table) -> set[tuple[str, ...]]:
    return set(zip(table["n"].astype(str), table["strategy"], table["treatment"], strict=True))


def press(browser, selector: str) -> None:
    browser.run(f"document.querySelector({json.dumps(selector)}).click()")


def choose(browser, id: str, value: str) -> None:
    box = f"document.getElementById('{id}')"
    browser.run(f"{box}.value = '{value}'; {box}.dispatchEvent(new Event('change'))")


def point_at(browser, n: int, strategy: str, treatment: str, click: bool = False) -> None:
    """Move the pointer near a point, and press there."""
    label = f"n: {n}; value: .*; strategy: {strategy}; treatment: {treatment}"
    marks = "[...document.querySelectorAll('#chart g.mark-symbol path')]"
    mark = f"{marks}.find(mark => /{label}/.test(mark.ariaLabel))"
    middle = "({x, y, width, height}) => ({x: x + width / 2, y: y + height / 2})"
    at = browser.run(f"({middle})({mark}.getBoundingClientRect())")
    for kind in ["mouseMoved", *(["mousePressed", "mouseReleased"] if click else [])]:
        browser.call(
            "Input.dispatchMouseEvent", type=kind, button="left" if click else "none", clickCount=1, **at
        )


def text(browser, id: str) -> str:
    return " ".join(browser.run(f"document.getElementById('{id}').innerText").split())


def test_strategies_and_treatments_are_switched_on_and_off(shown, browser):
    table = shown(rows([0, 1, 2, 4]))
    assert points(browser) == expected(table)
    chips = text(browser, "strategies"), text(browser, "treatments")
    assert chips == ("strategy similarity deepest", "treatment un-healed healed")  # as in the table
    press(browser, "input[value=deepest]")
    browser.wait("document.querySelectorAll('#chart g.mark-symbol path').length < 14")
    assert points(browser) == expected(table[table.strategy == "similarity"])
    press(browser, "input[value=healed]")
    browser.wait("document.querySelectorAll('#chart g.mark-symbol path').length < 8")
    assert points(browser) == expected(
        table[(table.strategy == "similarity") & (table.treatment == "pruned")]
    )
    press(browser, "input[value=healed]")
    alone = "document.querySelector('input[value=deepest]').parentNode"
    browser.run(f"{alone}.dispatchEvent(new Event('dblclick'))")
    browser.wait("document.querySelectorAll('#chart g.mark-symbol path[aria-label*=deepest]').length >= 7")
    assert points(browser) == expected(table[table.strategy == "deepest"])


def test_standard_errors_and_levels_are_drawn(shown, browser):
    table = shown(rows([0, 1, 2, 4]))
    ends = [
        [float(end) for end in re.findall(r"(?:low|high): ([\d.]+)", bar)] for bar in marks(browser, "rule")
    ]
    bars = sorted(end for end in ends if len(end) == 2)
    assert bars == sorted([round(quiz - 0.02, 4), round(quiz + 0.02, 4)] for quiz in table["quiz"])
    assert (
        browser.run("[...document.querySelectorAll('#chart text')].map(t => t.textContent)").count("chance")
        == 1
    )
    choose(browser, "metrics", "loss")
    browser.wait("document.getElementById('title').innerText.startsWith('held-out loss')")
    assert "chance" not in browser.run("document.querySelector('#chart').innerText")  # 9: far above


def test_what_is_under_the_pointer_is_told_with_its_layers_and_its_export(shown, browser):
    shown(rows([0, 1, 2, 4]))
    assert text(browser, "name") == "similarity, healed, n = 4"  # the best compromise
    point_at(browser, 2, "deepest", "pruned")
    browser.wait("document.getElementById('name').innerText === 'deepest, un-healed, n = 2'")
    assert text(browser, "lacks") == "without layers 5 to 6 of 8 (25 %)"
    gone = "[...document.querySelectorAll('#map i')].map(cell => cell.title.includes('removed'))"
    assert browser.run(gone) == [layer in (5, 6) for layer in range(8)]
    values = "quiz 0.820 ± 0.020 88 ± 3 % coin 0.510 ± 0.020 held-out loss (nats) 2.260 ± 0.050 87 ± 3 %"
    assert text(browser, "values") == values and text(browser, "size") == "1.00 M parameters, 4.00 MB"
    assert text(browser, "command") == (
        "snakemake export --configfile my.yaml --config 'export=[small/pruned/drop_5-6]'"
    )
    browser.wait("document.querySelector('#chart').textContent.includes('0.820 ± 0.020')")
    point_at(browser, 0, "similarity", "pruned")
    browser.wait("document.getElementById('name').innerText === 'uncut, un-healed'")
    assert text(browser, "lacks") == "all 8 layers" and browser.run(
        "document.getElementById('export').hidden"
    )


def test_a_cut_that_several_strategies_choose_names_them(shown, browser):
    table = rows([0, 2])
    table.loc[table.n == 2, "block"] = "drop_1_4"
    shown(table)
    point_at(browser, 2, "similarity", "healed")
    browser.wait("document.getElementById('name').innerText === 'similarity, healed, n = 2'")
    assert text(browser, "lacks") == "without layers 1 and 4 of 8 (25 %), also chosen by deepest"


def test_a_click_keeps_a_cut_until_it_is_released(shown, browser):
    shown(rows([0, 1, 2, 4]))
    point_at(browser, 2, "deepest", "pruned", click=True)
    browser.wait("!document.getElementById('release').hidden")
    point_at(browser, 4, "similarity", "healed")
    assert text(browser, "name") == "deepest, un-healed, n = 2"
    press(browser, "#release")
    point_at(browser, 1, "similarity", "healed")
    browser.wait("document.getElementById('name').innerText === 'similarity, healed, n = 1'")


def test_what_has_no_standard_error_is_shown_without(shown, browser):
    table = rows([0, 1, 2, 4]).assign(quiz_stderr=float("nan"))
    shown(table)
    assert points(browser) == expected(table)
    assert not any("low: " in bar for bar in marks(browser, "rule"))
    point_at(browser, 2, "deepest", "pruned")
    browser.wait("document.querySelector('#chart').textContent.includes('0.820')")
    assert text(browser, "values").startswith("quiz 0.820 coin 0.510 ± 0.020 held-out")
    assert "±" not in browser.run("document.querySelector('#chart').textContent")


def test_what_is_retained_is_never_less_than_nothing(shown, browser):
    table = rows([0, 1, 2, 4])
    table.loc[table.n == 4, "loss"] = 30
    shown(table)
    choose(browser, "metrics", "loss")
    press(browser, "input[value=retained_]")
    browser.wait("document.querySelector('#chart').textContent.includes('nothing left')")
    found = [float(value) for mark in marks(browser) for value in re.findall(r"value: (-?[\d.]+)", mark)]
    assert min(found) == 0 and max(found) == 100
    choose(browser, "metrics", "coin")
    assert "no better than chance" in text(browser, "note")


def test_models_of_other_depths_and_hundreds_of_cuts(shown, browser):
    table = pd.concat(
        [
            rows([0, 1, 2]),
            rows(range(39), ["large"], [f"way_{i}" for i in range(9)], ["pruned", "healed", "more"]),
        ]
    )
    shown(table)
    assert points(browser) == expected(table[table.model == "small"])
    choose(browser, "models", "large")
    browser.wait("document.querySelectorAll('#map i').length === 40")
    browser.wait("document.querySelectorAll('#chart g.mark-symbol path').length > 1000")
    assert points(browser) == expected(table[table.model == "large"]) and "large/" in text(browser, "command")


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_of_the_window(shown, browser, width, tmp_path):
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.call("Emulation.setDeviceMetricsOverride", **size)
    shown(rows([0, 1, 2, 4], treatments=["pruned", "healed_with_a_long_name", "healed_with_another"]))
    browser.picture(tmp_path / "page.png")
    assert browser.run("document.documentElement.scrollWidth") <= width
    right = browser.run("document.querySelector('#chart svg').getBoundingClientRect().right")
    assert right <= width and text(browser, "name").startswith("similarity")
    browser.call("Emulation.clearDeviceMetricsOverride")


@pytest.mark.parametrize("kind", ["un-healed", "uncut", "nothing measured"])
def test_small_studies(shown, browser, kind):
    table = rows([0] if kind == "uncut" else [0, 2], strategies=["similarity"], treatments=["pruned"])
    if kind == "nothing measured":
        table = table.loc[:, :"bytes"]
    shown(table, LEVELS[LEVELS.metric.isin(table.columns)])
    assert len(points(browser)) == {"un-healed": 2, "uncut": 1, "nothing measured": 0}[kind]
    assert text(browser, "name") == (
        "uncut, un-healed" if kind == "uncut" else "similarity, un-healed, n = 2"
    )


def test_the_program_writes_the_same_page_and_no_path_of_the_machine(tmp_path):
    table = rows([0, 2])
    table.to_csv(tmp_path / "table.csv", index=False)
    LEVELS.to_csv(tmp_path / "levels.csv", index=False)
    command = [sys.executable, ROOT / "scripts/explore.py", "--table", "table.csv", "--levels", "levels.csv"]
    subprocess.run([*command, "--out", "page.html"], cwd=tmp_path, check=True)
    text = (tmp_path / "page.html").read_text()
    assert text == page(table, LEVELS, "snakemake export")
    assert str(ROOT) not in text and str(tmp_path) not in text and sys.prefix not in text


def test_a_changed_page_makes_nothing_else_new(tmp_path, monkeypatch):
    for name in ("scripts", "resources"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_hash, "SCRIPTS", tmp_path / "scripts")
    programs = [path.stem for path in (tmp_path / "scripts").glob("*.py")]

    def now():
        code_hash.digest.cache_clear()
        return {program: code_hash.code(program) for program in programs}

    before = now()
    for file in ("resources/explore.html", "scripts/deeper_layers/reporting/explore.py"):
        path = tmp_path / file
        path.write_text(path.read_text().replace("unpruned", "whole"))
        after = now()
        assert {program for program in programs if after[program] != before[program]} == {"explore"}
        before = after
    code_hash.digest.cache_clear()
