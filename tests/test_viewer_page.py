"""The page of `gpuvm view` in a real Chromium: what it draws, and what hands and keys do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from browser import Page, chromium, needs_browser
from viewer_scenes import COPY, OTHER, SIZE, TARGET, TEXTURE, TILE, UNMAP, write_page, write_scene

pytestmark = needs_browser


@pytest.fixture(scope="module")
def driver() -> Iterator[Chrome]:
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("viewer")
    return write_page(write_scene(folder / "scene.gpuvm"), folder / "scene.html")


@pytest.fixture
def page(driver: Chrome, scene: Path) -> Iterator[Page]:
    page = Page(driver, scene)
    yield page
    assert page.complaints() == []


def test_the_head_says_what_it_is(page: Page) -> None:
    assert page.driver.title == "scene.gpuvm – gpuvm view"
    assert page.text("#title") == "scene.gpuvm"
    about = page.text("#about")
    assert "./painter · 2026-01-02 03:04:05 UTC · TU102, 8 GiB VRAM" in about
    assert "16 calls, 5 mappings, 3 objects, 2 jobs · 1 fault" in about


def test_a_mapping_has_its_place_and_its_time(page: Page) -> None:
    ground = page.pixel(page.call(3), page.addr(0, TEXTURE + TILE // 2))
    inside = page.pixel(page.call(7), page.addr(0, TEXTURE + TILE // 2))
    after = page.pixel(page.call(12), page.addr(0, TEXTURE + TILE + TILE // 2))
    kept = page.pixel(page.call(12), page.addr(0, TEXTURE + TILE // 2))
    assert inside == kept
    assert ground == after
    assert inside != ground
    assert page.pixel(page.call(7), page.addr(0, TARGET + SIZE // 2)) != inside, "another object"


def test_pointing_tells_who_mapped_and_who_unmapped(page: Page) -> None:
    page.at(page.call(7) + 8, page.addr(0, TEXTURE + TILE // 2)).perform()
    tip = page.text("#tip")
    assert tip.startswith("Object 4, 1 MiB at 0x100000000")
    assert "6 VM_BIND, 2 ops, at 0.000006 s" in tip
    assert f"{UNMAP} VM_BIND, 1 op" in tip
    assert "1 MiB, VRAM, handle 1, made by call 4" in tip
    page.at(page.call(12), page.addr(0, TEXTURE + TILE + TILE // 2)).perform()
    assert page.text("#tip").startswith("Nothing mapped")
    page.at(page.call(12), page.addr(0, (TEXTURE + TARGET) // 2)).perform()
    assert page.text("#tip").startswith("Hole, folded")
    page.at(page.call(12), page.lane("fragmentation")).perform()
    assert "largest hole / all that is free" in page.text("#tip")


def test_a_click_keeps_it(page: Page) -> None:
    page.at(page.call(7) + 8, page.addr(0, TARGET + SIZE // 2)).click().perform()
    assert "Object 5, 1 MiB at 0x200000000" in page.text("#details")
    page.keys(Keys.ESCAPE)
    assert "Object 5" not in page.text("#details")


def test_jobs_have_a_lane(page: Page) -> None:
    x = page.js("const f = gpuvmPage.frame; return f.px(f.axis.ofTime(9200))")
    y = (
        page.lane("1: channel 1")
        if page.js("return gpuvmPage.scene.queues.length") > 1
        else page.lane("channel 1")
    )
    page.at(x, y).click().perform()
    details = page.text("#details")
    assert "Job on channel 1" in details
    assert f"{COPY} EXEC" in details
    assert "500 ns later" in details
    assert "EIO" in details
    assert "256 KiB at 0x100000000" in details, "what it read"


def test_a_fault_is_a_mark_that_names_the_calls(page: Page) -> None:
    page.keys("n")
    assert "mark 1 of 2" in page.text("#found")
    assert "Eviction" in page.text("#details")
    assert "vram – gart" in page.text("#details")
    page.keys("n")
    details = page.text("#details").split("\n")
    assert details[0] == "Fault"
    assert details[details.index("unmapped by call") + 1].startswith(f"{UNMAP} VM_BIND, 1 op")
    assert details[details.index("mapped by call") + 1].startswith("6 VM_BIND, 2 ops")
    assert details[details.index("the job's call") + 1].startswith(f"{COPY} EXEC")
    assert "use after unmap" in details
    marks = page.js("const f = gpuvmPage.frame; return [f.px(f.axis.ofTime(9800))]")
    page.at(marks[0], page.addr(0, TEXTURE + TILE)).perform()
    assert page.text("#tip").startswith("Fault")


def test_the_wheel_zooms_at_the_pointer(page: Page) -> None:
    before = page.view()
    x, y = page.call(8), page.addr(0, TEXTURE)
    page.wheel(x, y, -300)
    x0, x1, u0, u1 = page.view()
    assert x1 - x0 < before[1] - before[0]
    assert u1 - u0 < before[3] - before[2]
    assert page.call(8) == pytest.approx(x, abs=2)
    assert page.addr(0, TEXTURE) == pytest.approx(y, abs=2)
    page.wheel(x, page.lane("VM_BIND"), -300)
    assert page.view()[2:] == (u0, u1), "over the lanes only time"
    x0, x1, _, _ = page.view()
    page.wheel(40, y, -300)
    assert page.view()[:2] == (x0, x1), "over the addresses only these"
    for _ in range(12):
        page.wheel(x, y, 1000)
    assert page.view() == before


def test_a_drag_moves(page: Page) -> None:
    page.keys("+", "+", "+")
    x0, x1, u0, u1 = page.view()
    page.drag(700, 200, 600, 250)
    moved = page.view()
    assert moved[0] > x0
    assert moved[2] < u0
    assert moved[1] - moved[0] == pytest.approx(x1 - x0)
    assert moved[3] - moved[2] == pytest.approx(u1 - u0)


def test_a_box_is_what_the_tables_show(page: Page) -> None:
    rows = page.rows()
    assert len(rows) == 5
    assert rows[0][:4] == ["0x100000000", "0x100100000", "1 MiB", "object 4"]
    y = page.addr(0, TARGET + TILE)
    page.drag(page.call(7) + 3, y, page.call(10), y + 12, shift=True)
    assert [row[0] for row in page.rows()] == ["0x200000000"]
    assert page.text("#which") == "1 in the selected box, calls 8 – 10"
    page.tab("Calls")
    assert [row[:2] for row in page.rows()] == [["8", "EXEC"], ["9", "VM_BIND"], ["10", "VM_BIND"]]
    page.tab("Jobs")
    assert [row[0] for row in page.rows()] == ["7", "8"], (
        "the first was done in the box, the second began there"
    )
    page.tab("Mappings")
    page.find("#clear").click()
    assert len(page.rows()) == 5


def test_ops_tell_what_was_asked_and_what_came_of_it(page: Page) -> None:
    page.tab("Ops")
    rows = page.rows()
    assert [row[0] for row in rows] == ["6", "6", "9", "10", "13", "16"]
    assert rows[0][1:3] == ["map 1 MiB at 0x100000000, handle 1 + 0x0", "map"]
    assert rows[2][1:3] == ["unmap 256 KiB at 0x100040000", "remap"]
    assert rows[3][2] == "refused"


def test_a_row_leads_to_its_mapping(page: Page) -> None:
    page.find(".rows").click()
    page.js("document.querySelector('.rows').focus()")
    page.find(".rows .row").click()
    assert "Object 4" in page.text("#details")
    page.find(".rows").send_keys(Keys.END)
    assert "Object 12" in page.text("#details")
    assert page.js("return document.querySelectorAll('.row.current').length") == 1


def test_a_column_sorts(page: Page) -> None:
    head = page.find(".head .cell:nth-child(1)")
    head.click()
    addresses = [int(row[0], 16) for row in page.rows()]
    assert addresses == sorted(addresses)
    page.find(".head .cell:nth-child(1)").click()
    assert [int(row[0], 16) for row in page.rows()] == addresses[::-1]


def test_the_search_tells_an_addresss_history(page: Page) -> None:
    page.keys("/")
    assert page.js("return document.activeElement.id") == "address"
    page.find("#address").send_keys(f"{TEXTURE + TILE:#x}", Keys.ENTER)
    assert (
        page.text("#found")
        == f"{TEXTURE + TILE:#x} of client 1 was mapped once: the table lists when, and to what"
    )
    assert [row[5:7] for row in page.rows()] == [["6", "9"]]
    assert page.js("return gpuvmPage.frame.py(gpuvmPage.above.line)") == pytest.approx(
        page.addr(0, TEXTURE + TILE), abs=1
    )
    page.find("#address").clear()
    page.find("#address").send_keys("0x999", Keys.ENTER)
    assert "never mapped" in page.text("#found")
    page.find("#address").clear()
    page.find("#address").send_keys("nonsense", Keys.ENTER)
    assert "is no address" in page.text("#found")
    page.find("#address").clear()
    page.find("#address").send_keys(f"{OTHER:#x}", Keys.ENTER)
    assert "of client 3 was mapped once" in page.text("#found")


def test_keys_choose_colours_and_axis(page: Page) -> None:
    x, y = page.call(8), page.addr(0, TEXTURE + TILE // 2)
    by_object = page.pixel(x, y)
    page.keys("c")
    by_client = page.pixel(x, y)
    assert by_client != by_object
    assert page.pixel(x, page.addr(0, TARGET + TILE)) == by_client, "one client, one colour"
    assert "client 1" in page.text("#legend")
    page.keys("t")
    assert page.js("return document.getElementById('axis').value") == "time"
    assert page.view()[:2] == (1000.0, 16300.0)
    page.keys("t", "c")
    assert page.pixel(x, y) == by_object


def test_arrows_move_and_zero_shows_all(page: Page) -> None:
    whole = page.view()
    page.keys("+", "+", Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    x0, _, u0, _ = page.view()
    page.keys(Keys.ARROW_LEFT, Keys.ARROW_UP)
    assert page.view()[0] < x0
    assert page.view()[2] < u0
    page.keys("0")
    assert page.view() == whole
    page.keys("?")
    assert page.find("#keys").is_displayed()
    page.find("#keys button").click()


def test_one_client_alone(page: Page) -> None:
    options = [option.text for option in page.driver.find_elements("css selector", "#space option")]
    assert options == [
        "all",
        "client 1 painter: 4 mappings",
        "client 2 idle: 0 mappings",
        "client 3 other: 1 mappings",
    ]
    page.js("const s = document.getElementById('space'); s.value = '2'; s.dispatchEvent(new Event('change'))")
    page.settled()
    assert [row[0] for row in page.rows()] == [f"{OTHER:#x}"]
    page.js("const s = document.getElementById('space'); s.value = '1'; s.dispatchEvent(new Event('change'))")
    page.settled()
    assert page.rows() == []


def test_everything_has_a_name_for_those_who_do_not_see(page: Page) -> None:
    assert "Arrows move" in (page.find("#picture").get_attribute("aria-label") or "")
    nameless = page.js(
        "return [...document.querySelectorAll('button, input, select, canvas, aside, dialog')].filter(e =>"
        " !e.textContent.trim() && !e.getAttribute('aria-label') && !e.getAttribute('aria-hidden')"
        " && !(e.labels && e.labels.length)).map(e => e.outerHTML)"
    )
    assert nameless == []
    assert page.js("return document.querySelector('#table').getAttribute('aria-rowcount')") == "6"


def test_dark_and_paper(page: Page) -> None:
    light = page.pixel(page.call(3), page.addr(0, TEXTURE))
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    try:
        page.settled()
        assert sum(page.pixel(page.call(3), page.addr(0, TEXTURE))) < sum(light) / 2
        page.js("dispatchEvent(new Event('beforeprint'))")
        assert page.pixel(page.call(3), page.addr(0, TEXTURE)) == light
        page.js("dispatchEvent(new Event('afterprint'))")
        assert len(page.driver.print_page()) > 10_000
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
