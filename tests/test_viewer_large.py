"""Pages of much, of nothing and of what is hostile, in a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from browser import Page, chromium, needs_browser
from gpuvm.report.page import tables
from suite import scaled
from trace_scenes import records_of_lines, write_sqlite
from tracefile import VULKANINFO, bind, gem_new, op, vm_init
from viewer_scenes import TEXTURE, many_mappings, write_page, write_scene

pytestmark = needs_browser

BUDGET = 12_000  # frame.ts
STRIPS = 10
HOSTILE = '</script><script>window.bad=1</script><img src=x onerror="window.bad=2">\u2028\'"--><!--'


@pytest.fixture(scope="module")
def driver() -> Iterator[Chrome]:
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("viewer")
    calls = many_mappings(scaled(20_000, 100_000), scaled(2_000, 10_000))
    return write_page(write_sqlite(folder / "large.gpuvm", records_of_lines(*calls)), folder / "large.html")


def _work(page: Page) -> dict[str, float]:
    work: dict[str, float] = page.js("return gpuvmPage.work")
    return work


def test_a_frame_draws_a_bounded_number_of_things(driver: Chrome, large: Path) -> None:
    page = Page(driver, large)
    count = page.js("return gpuvmPage.trace.rows('mappings')")
    assert count == scaled(20_000, 100_000)
    page.js(
        "window.works = []; const draw = gpuvmPage.frame.draw;"
        "gpuvmPage.frame.draw = function (...a) { const w = draw.apply(this, a); works.push(w); return w }"
    )
    for amount in (-200, -400, -600, -900, 600, 1500, 3000):
        page.wheel(600, 180, amount)
    page.drag(600, 180, 500, 150)
    works = page.js("return works")
    assert len(works) >= 7
    for work in works:
        assert work["rects"] <= BUDGET
        assert work["visited"] <= 8 * BUDGET, (
            "each try that is coarser by half looks at no more than it draws"
        )
        assert work["columns"] <= 1440 * len(page.js("return gpuvmPage.frame.panes.lanes"))
        assert work["words"] < 600
    assert page.complaints() == []


def test_what_was_drawn_together_is_drawn_finely_when_nothing_moves(driver: Chrome, large: Path) -> None:
    page = Page(driver, large)
    assert _work(page)["together"]
    page.wait("return gpuvmPage.refined && !gpuvmPage.refined.together")
    assert page.js("return gpuvmPage.refined.rects") <= BUDGET
    exact = page.js("return [...gpuvmPage.picture.getContext('2d').getImageData(400, 100, 200, 60).data]")
    assert len({tuple(exact[i : i + 3]) for i in range(0, len(exact), 4)}) >= 1


def test_the_table_holds_only_rows_that_are_seen(driver: Chrome, large: Path) -> None:
    page = Page(driver, large)
    total = scaled(20_000, 100_000)
    assert page.js("return document.querySelector('#table').getAttribute('aria-rowcount')") == str(total + 1)
    assert len(page.rows()) < 60
    page.js("const rows = document.querySelector('.rows'); rows.scrollTop = rows.scrollHeight")
    page.wait(f"return [...document.querySelectorAll('.rows .row')].some(r => r.ariaRowIndex == {total + 1})")
    assert len(page.rows()) < 60


def test_more_mappings_than_a_page_holds_are_bundled(
    driver: Chrome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MOST_MAPPINGS", 500)
    trace = write_sqlite(tmp_path / "t.gpuvm", records_of_lines(*many_mappings(4000, 400)))
    page = Page(driver, write_page(trace, tmp_path / "t.html"))
    note = page.text("#notes")
    assert note.startswith("4,000 mappings are more than a page holds")
    assert "`gpuvm trim`" in note
    assert "4,000 mappings" in page.text("#about")
    assert page.js("return gpuvmPage.trace.rows('mappings')") <= 700
    (bundle, *_) = [row for row in page.rows() if row[3].endswith("in one")]
    assert int(bundle[3].split()[0]) > 1
    assert page.complaints() == []


def test_names_from_a_trace_are_only_text(driver: Chrome, tmp_path: Path) -> None:
    trace = write_scene(tmp_path / "<img src=x onerror=window.bad=3>.gpuvm", names=(HOSTILE, "</title>", "b"))
    page = Page(driver, write_page(trace, tmp_path / "hostile.html"))
    assert page.js("return window.bad") is None
    assert page.js("return document.images.length + document.scripts.length") == 2
    assert "</script>" in page.text("#about")
    assert "<img src=x" in page.driver.title
    page.keys("n", "n", "c", "t")
    page.at(600, 150).perform()
    for tab in ("Ops", "Calls", "Jobs", "Moves", "Faults", "Mappings"):
        page.tab(tab)
    assert page.js("return window.bad") is None
    assert page.complaints() == []


def test_the_page_runs_nothing_else_and_loads_nothing(driver: Chrome, tmp_path: Path) -> None:
    out = write_page(write_scene(tmp_path / "t.gpuvm"), tmp_path / "t.html")
    text = out.read_text()
    assert "http://" not in text
    assert "https://" not in text
    page = Page(driver, out)
    assert page.js("return performance.getEntriesByType('resource').length") == 0
    assert page.complaints() == []
    out.write_text(text.replace("</body>", "<script>window.bad = 1</script><img src=data:,x></body>"))
    page = Page(driver, out)
    assert page.js("return window.bad") is None
    assert len(page.complaints()) >= 2, "the policy refused both"


def test_nothing_and_one(driver: Chrome, tmp_path: Path) -> None:
    for lines in ([], [vm_init(1)], [vm_init(1), gem_new(1), bind(op("map", TEXTURE, 0x1000, 1))]):
        trace = write_sqlite(tmp_path / f"{len(lines)}.gpuvm", records_of_lines(*lines) if lines else [])
        page = Page(driver, write_page(trace, tmp_path / "t.html"))
        page.keys("+", "-", "c", "t", "n", "0", "t")
        page.wheel(600, 150, -500)
        page.at(600, 150).click().perform()
        page.tab("Calls")
        assert len(page.rows()) == len(lines)
        assert page.complaints() == []


def test_what_json_lines_do_not_have_is_said(driver: Chrome, tmp_path: Path) -> None:
    page = Page(driver, write_page(VULKANINFO, tmp_path / "t.html"))
    assert "when it ran is not known" in page.text("#legend") or not page.js(
        "return gpuvmPage.scene.queues.length"
    )
    page.tab("Calls")
    assert {row[5] for row in page.rows()} == {"–"}
    page.keys("t")
    assert page.complaints() == []
