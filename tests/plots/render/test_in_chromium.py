"""The page as a browser shows and prints it. Skipped where there is no Chromium; .ci/run installs one."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plots.data.load import load
from plots.report import draw
from tests.conftest import ROOT
from tests.plots.conftest import FACTORS, Maker, fill_gpu
from tests.plots.render.chromium import FOUND, Chromium

pytestmark = pytest.mark.skipif(not FOUND, reason="no Chromium is installed here: apt-get install chromium")

REFERENCE = ROOT / "results" / "cpu" / "reference"
UNFOLD = "document.querySelectorAll('details').forEach(d => d.open = true)"
COMPLAINTS = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
# The least contrast of any text with the ground that it stands on, outside of figures, by WCAG 2.
CONTRAST = """(() => {
  const parts = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = parts(c).map(v => v / 255).map(v => v <= .04045 ? v / 12.92
    : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const clear = c => parts(c)[3] === 0;
  const ground = e => { while (e && clear(getComputedStyle(e).backgroundColor)) e = e.parentElement;
    return e ? getComputedStyle(e).backgroundColor : 'rgb(255, 255, 255)'; };
  const told = [...document.body.querySelectorAll('*')].filter(e => !e.closest('svg, .link') &&
    [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.checkVisibility());
  const found = told.map(e => [light(getComputedStyle(e).color), light(ground(e))].sort((a, b) => b - a))
    .map(([a, b]) => (a + .05) / (b + .05));
  return [found.length, Math.min(...found)];
})()"""
# Sizes in px of all text that is shown outside of figures: the least of intervals, and of the rest.
SIZES = """(() => {
  const told = [...document.body.querySelectorAll('*')].filter(e => !e.closest('svg, .link') && e.checkVisibility() &&
    [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  const least = f => Math.min(...told.filter(f).map(e => parseFloat(getComputedStyle(e).fontSize)));
  return [least(e => e.tagName === 'SMALL'), least(e => e.tagName !== 'SMALL')];
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    found = Chromium(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn report of made-up times, in which every kind of block stands."""
    maker = Maker(tmp_path_factory.mktemp("results") / "h100" / "table1")
    fill_gpu(maker, FACTORS, [(4, 512), (4, 1024)])
    maker.write()
    draw(load(maker.path))
    return maker.path / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_and_asks_for_nothing(browser: Chromium, gpu: Path, width: int, scheme: str) -> None:
    browser.open(gpu, width, scheme=scheme)
    folded = browser.value("document.documentElement.scrollWidth")
    browser.value(UNFOLD)
    assert (folded, browser.value("document.documentElement.scrollWidth")) == (width, width)
    asked = [e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"]
    assert asked == [gpu.as_uri()]
    assert [e for e in browser.events if e.get("method") in COMPLAINTS] == []
    assert browser.value("[...document.images].filter(i => !i.naturalWidth).length") == 0
    figures = browser.value("[...document.querySelectorAll('svg')].map(s => [s.clientWidth, s.clientHeight])")
    assert len(figures) > 3 and all(min(sides) > 100 for sides in figures)
    told, contrast = browser.value(CONTRAST)
    assert told > 1000 and contrast >= 4.5


def test_the_first_screen_holds_the_answer_its_figure_and_its_table(browser: Chromium, gpu: Path) -> None:
    browser.open(gpu, 1280, 800)
    ends = browser.value(
        "['.answer', '.beside svg', '.beside tbody:last-child'].map(s => document.querySelector(s)"
        ".getBoundingClientRect().bottom)"
    )
    assert max(ends) <= 800, ends
    assert 4 <= browser.value("document.querySelectorAll('.beside tbody tr').length") <= 8
    cut = "[...document.querySelectorAll('.beside .wide')].filter(w => w.scrollWidth > w.clientWidth).length"
    assert browser.value(cut) == 0
    assert browser.value("document.querySelectorAll('svg text').length") > 50, "text that can be selected"


@pytest.mark.parametrize("width", [390, 1280])
def test_every_heading_is_reached_from_the_contents(browser: Chromium, gpu: Path, width: int) -> None:
    browser.open(gpu, width)
    names = browser.value("[...document.querySelectorAll('nav a[href^=\"#\"]')].map(a => a.hash)")
    assert len(names) == browser.value("document.querySelectorAll('h2').length") > 8
    for name in names:
        browser.value(f"document.querySelector('nav a[href=\"{name}\"]').click()")
        browser.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        where = f"document.querySelector('{name}')"
        assert browser.value(f"{where}.checkVisibility({{contentVisibilityAuto: true}})"), name
        heading = f"{where}.closest('section').querySelector('h2').getBoundingClientRect()"
        assert 0 <= browser.value(f"{heading}.top") < 800, name


def test_a_phone_shows_what_a_line_is_of_and_that_there_is_more(browser: Chromium, gpu: Path) -> None:
    browser.open(gpu, 390)
    browser.value(UNFOLD)
    intervals, rest = browser.value(SIZES)
    assert intervals >= 11 and rest >= 12
    wide = "[...document.querySelectorAll('.wide')].filter(w => w.scrollWidth > w.clientWidth + 100)"
    assert browser.value(f"{wide}.length") > 2
    left = (
        f"{wide}.map(w => {{ w.scrollLeft = 90; return ['thead tr:first-child th', 'tbody tr:last-child th'].map(s =>"
        "[...w.querySelectorAll(s)].find(e => e.checkVisibility()).getBoundingClientRect().left) })"
    )
    assert {x for pair in browser.value(left) for x in pair} == {16}, "the first column stands still at the edge"
    shade = browser.value(f"getComputedStyle({wide}[0]).backgroundImage")
    assert shade.count("gradient") == 2
    shown = browser.value("[...document.querySelectorAll('#times th.minor')].filter(e => e.checkVisibility()).length")
    assert shown == 0, "forward and backward apart are for wider screens"


def _is_printed_well(browser: Chromium, page: Path) -> None:
    browser.open(page, 703)  # 186 mm: an A4 page less its margins
    pages = len(re.findall(rb"/Type\s*/Page\b", browser.pdf()))
    assert 1 <= pages <= 4
    browser.call("Emulation.setEmulatedMedia", media="print")
    printed = "[...document.querySelectorAll('figure')].filter(f => f.checkVisibility())"
    figures = browser.value(f"{printed}.map(f => [f.offsetHeight, getComputedStyle(f).breakInside])")
    assert figures and all(0 < height < 1030 and how == "avoid" for height, how in figures), "no figure is cut in two"
    assert len(figures) == browser.value("document.querySelectorAll('figure').length")
    for name in ("answer", "conditions", "times"):
        assert browser.value(f"document.getElementById('{name}').checkVisibility()"), name
    after = browser.value("[...document.querySelectorAll('h2, h3, summary')].map(h => getComputedStyle(h).breakAfter)")
    assert {*after} == {"avoid"}, "no heading ends a page"


def test_it_is_printed_on_four_pages(browser: Chromium, gpu: Path) -> None:
    _is_printed_well(browser, gpu)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["table1", "peers", "table2"])
def test_the_published_ones_are_printed_on_four_pages(browser: Chromium, tmp_path: Path, name: str) -> None:
    for file in ("rows.jsonl", "run.json", "samples.jsonl", "causes.csv"):
        if (REFERENCE / name / file).exists():
            shutil.copy(REFERENCE / name / file, tmp_path)
    draw(load(tmp_path))
    _is_printed_well(browser, tmp_path / "report.html")


def test_names_from_files_run_nothing(browser: Chromium, maker: Any, make_case: Any) -> None:
    evil = "</svg></text><script>document.title = 'run'</script><img src=x onerror=document.title='run'>"
    for method, ms in (("full", 2.0), ("lora", 3.0)):
        maker.timed(make_case(method, model=evil), {"forward": 1.0, "backward": ms, "forward-backward": 1 + ms})
    maker.write()
    draw(load(maker.path), figures=("ratio",))
    browser.open(maker.path / "report.html", 1280)
    assert browser.value("document.title").startswith("Fine-tuning times")
    assert browser.value("document.querySelectorAll('script, img').length") == 0
    asked = [e for e in browser.events if e.get("method") == "Network.requestWillBeSent"]
    assert len(asked) == 1 and browser.value("document.body.innerText.includes('<img src=x')")
