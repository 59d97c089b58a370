"""The report and the table as a reader sees them: a small study, Snakemake's report, a headless browser."""

import pytest

from helpers.browser import Browser
from helpers.small_study import changed, prepare, run

FIGURES = {
    "distance-curves",
    "distance-map",
    "healing",
    "retained",
    "trade-off",
    "strategies",
    "distance-loss",
    "layer-map",
}
pytestmark = pytest.mark.slow
TOKEN = "hf_ofTheTestOfTheReport"
STUDY = changed(
    study__remove=[1, 3],
    study__strategies=["similarity", "deepest"],
    study__speed=True,
    speed={"prompt": 16, "new": 3, "repeats": 1, "precision": "fp32"},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A whole small study and its report."""
    folder = prepare(tmp_path_factory.mktemp("report"), STUDY)
    output = run(folder, "--cores", "1", HF_TOKEN=TOKEN)
    assert output.count("# What can be removed") == 1  # in the terminal, at the end of the run that made it
    assert "# What can be removed" not in run(folder, "--cores", "1")
    run(folder, "--report", "results/report.html", HF_TOKEN=TOKEN)
    return folder


def test_a_token_of_the_environment_is_in_no_file(folder):
    assert (folder / "results/report.html").stat().st_size > 100_000
    for path in folder.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path


@pytest.fixture
def browser(tmp_path):
    with Browser(tmp_path / "profile") as browser:
        yield browser


def click(browser, words: str) -> None:
    """On the innermost element with exactly these words, once it is there."""
    find = "[...document.querySelectorAll('a, button, li, span, div, th')]"
    find += f".filter(e => e.innerText?.trim() === {words!r}).at(-1)"
    browser.wait(f"!!{find}")
    browser.run(f"{find}.click()")


def test_the_report_shows_every_figure_with_its_caption(folder, browser, tmp_path):
    browser.open(folder / "results/report.html")
    browser.wait("document.body.innerText.includes('How many layers can be removed?')")
    text = " ".join(browser.run("document.body.innerText").split())
    # The methods are those of this study.
    assert "Averaged over 40 texts of world (an invented world, generated), split calibration" in text
    assert "LoRA of rank 4 on the feed-forward layers, the other weights in fp32; 6 steps of 4 rows" in text
    assert "n = 1, 3; the block of n layers is chosen by: similarity, deepest" in text
    captions = browser.run("Object.values(results).map(result => [result.name, result.caption])")
    assert {"table.html", "summary.html", "explore.html"} < {name for name, _ in captions}
    assert all(len(caption) > 80 for _, caption in captions)
    shown = {}
    for category in ("tiny", "Results"):
        browser.open(folder / "results/report.html")
        click(browser, category)
        browser.wait("!!document.querySelector('td a[iconname=eye]')")
        rows = browser.run("[...document.querySelectorAll('tbody tr')].map(row => row.innerText.trim())")
        for i, name in enumerate(rows):
            if name not in ("table", "summary", "explore"):
                row = f"document.querySelectorAll('tbody tr')[{i}]"
                browser.run(f"{row}.querySelector('a[iconname=eye]').click()")
                browser.wait("[...document.images].some(image => image.complete && image.naturalWidth > 400)")
                shown.setdefault(category, set()).add(name)
        browser.picture(tmp_path / f"{category}.png")
    assert shown["tiny"] == {*FIGURES, "speed", "pareto"} and shown["Results"] == {"healing", "loss"}
    assert browser.errors == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in browser.requests)


def test_the_answer_opens_from_the_title_which_can_be_scrolled_to(folder, tmp_path):
    with Browser(tmp_path / "profile", 1280, 600) as browser:
        browser.open(folder / "results/report.html")
        browser.wait("!!document.querySelector('h1.title')")
        page = "document.querySelector('.overflow-auto.items-center')"
        assert browser.run(f"{page}.scrollHeight > {page}.clientHeight")  # longer than the window
        assert browser.run("document.querySelector('h1.title').getBoundingClientRect().top") >= 0
        click(browser, "summary.html")
        opened(browser)


def opened(browser) -> None:
    """Open the result that a list shows alone."""
    browser.wait("!!document.querySelector('a[iconname=eye]')")
    browser.run("document.querySelector('a[iconname=eye]').click()")
    browser.wait("document.querySelector('iframe')?.src.startsWith('data:text/html')")
    assert browser.errors == []


def test_the_page_to_explore_works_in_the_report_and_alone(folder, browser, tmp_path):
    browser.open(folder / "results/report.html")
    browser.wait("!!document.querySelector('h1.title')")
    click(browser, "explore.html")
    opened(browser)
    browser.open(folder / "results/explore.html")
    browser.wait("document.querySelectorAll('#chart g.mark-symbol path').length > 4")
    assert "export=[tiny/" in browser.run("document.getElementById('command').innerText")
    assert browser.errors == []


def test_the_loss_is_on_the_screen(folder, browser):
    browser.open(folder / "results/table.html")
    right = "[...document.querySelectorAll('th')].find(head => head.innerText.trim() === 'loss')"
    assert browser.run(f"{right}.getBoundingClientRect().right") < 1000  # of 1400 pixels


def test_the_table_sorts_filters_and_downloads(folder, browser):
    browser.open(folder / "results/table.html")
    heads = browser.run("[...document.querySelectorAll('th')].map(head => head.innerText.trim())")

    def column(name):
        cells = f"row.cells[{heads.index(name)}].innerText"
        return browser.run(f"[...document.querySelectorAll('tbody tr:not([hidden])')].map(row => {cells})")

    whole = column("loss")
    click(browser, "loss")
    assert column("loss") == sorted(whole, key=lambda text: float(text.split()[0])) != whole
    click(browser, "loss")
    assert column("loss") == sorted(whole, key=lambda text: float(text.split()[0]), reverse=True)
    browser.run("filter.value = 'deepest healed'; filter.dispatchEvent(new Event('input'))")
    assert set(column("strategy")) == {"deepest"} and set(column("treatment")) == {"healed"}
    assert browser.run("document.getElementById('count').innerText") == f"2 of {len(whole)} rows"
    csv = browser.run("fetch(document.getElementById('download').href).then(answer => answer.text())")
    assert csv == (folder / "results/table.csv").read_text()
    assert browser.errors == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in browser.requests)


def test_a_fault_of_a_page_is_seen(browser, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<script>console.error('one'); missing()</script><img src='https://example.org/x.png'>")
    browser.open(page)
    browser.wait("true")
    assert len(browser.errors) >= 2 and any("example.org" in url for url in browser.requests)
