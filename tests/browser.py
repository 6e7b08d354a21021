"""A real Chromium without a window, for tests of pages. Where there is none they are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM: Final = shutil.which("chromium")
CHROMEDRIVER: Final = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or CHROMEDRIVER is None, reason="no chromium and chromedriver; make test says why"
)
WIDTH, HEIGHT = 1440, 900
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root, where it does not start
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
_LONGEST = 60  # seconds that a page may take on a busy machine


class Page:
    """A page of `gpuvm view`, and the hands of who looks at it."""

    def __init__(self, driver: webdriver.Chrome, path: Path) -> None:
        self.driver: Final = driver
        driver.get(path.as_uri())
        self.wait("return document.documentElement.dataset.ready")
        self.settled()

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str) -> Any:
        return WebDriverWait(self.driver, _LONGEST, 0.02).until(lambda _: self.js(script))

    def number(self, script: str, *arguments: Any) -> int:
        """What a script returns, rounded."""
        return round(float(self.js(script, *arguments)))

    def settled(self) -> None:
        """The tables follow what is in view, and all that is in it is drawn finely."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => {"
            " gpuvmPage.settle(); done() }))"
        )

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    # -- where things are, in pixels of the picture

    def call(self, number: int) -> int:
        """Between a call and the next one, where no line is; of an axis of calls."""
        place = "gpuvmPage.trace.column('calls.id').indexOf(arguments[0])"
        return self.number(f"return gpuvmPage.frame.px({place} + 0.4)", number)

    def addr(self, client: int, addr: int) -> int:
        return self.number(
            "const f = gpuvmPage.frame; return f.py(f.scene.fold.place(arguments[0], arguments[1]))",
            client,
            addr,
        )

    def lane(self, label: str) -> int:
        return self.number(
            "const lane = gpuvmPage.frame.panes.lanes.find(({label}) => label === arguments[0]);"
            " return lane.top + lane.height * 0.7",
            label,
        )

    def view(self) -> tuple[float, float, float, float]:
        x0, x1, u0, u1 = self.js("const {x0, x1, u0, u1} = gpuvmPage.view; return [x0, x1, u0, u1]")
        return x0, x1, u0, u1

    def pixel(self, x: int, y: int) -> list[int]:
        pixel: list[int] = self.js(
            "const c = document.getElementById('picture'), r = c.width / c.clientWidth;"
            " return [...c.getContext('2d').getImageData(arguments[0] * r, arguments[1] * r, 1, 1).data]",
            x,
            y,
        )
        return pixel[:3]

    # -- hands

    def at(self, x: float, y: float) -> ActionChains:
        """A hand whose pointer is there in the picture."""
        picture = self.find("#picture")
        size = picture.size
        return ActionChains(self.driver, duration=20).move_to_element_with_offset(
            picture, round(x - size["width"] / 2), round(y - size["height"] / 2)
        )

    def drag(self, x0: int, y0: int, x1: int, y1: int, *, shift: bool = False) -> None:
        hand = self.at(x0, y0)
        if shift:
            hand = hand.key_down(Keys.SHIFT)
        hand = hand.click_and_hold().move_by_offset(x1 - x0, y1 - y0).release()
        (hand.key_up(Keys.SHIFT) if shift else hand).perform()
        self.settled()

    def wheel(self, x: int, y: int, amount: int) -> None:
        """Scroll at a place of the picture; less than 0 is away from oneself, and zooms in."""
        self.at(x, y).perform()
        box = self.js(
            "const b = document.getElementById('picture').getBoundingClientRect(); return [b.left, b.top]"
        )
        self.driver.execute_cdp_cmd(
            "Input.dispatchMouseEvent",
            {"type": "mouseWheel", "x": box[0] + x, "y": box[1] + y, "deltaX": 0, "deltaY": amount},
        )
        self.settled()

    def keys(self, *keys: str) -> None:
        """Typed into the picture."""
        self.js("document.getElementById('picture').focus()")
        ActionChains(self.driver).send_keys(*keys).perform()
        self.settled()

    def rows(self) -> list[list[str]]:
        """The table's rows that are in the page."""
        rows: list[list[str]] = self.js(
            "return [...document.querySelectorAll('.rows .row')]"
            ".map(row => [...row.children].map(cell => cell.textContent))"
        )
        return rows

    def tab(self, name: str) -> None:
        (tab,) = (
            tab for tab in self.driver.find_elements(By.CSS_SELECTOR, "#tabs button") if tab.text == name
        )
        tab.click()

    def complaints(self) -> list[str]:
        """What the browser's console says: errors of the script, refused requests."""
        log: list[dict[str, str]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]


@contextmanager
def chromium(*, served: bool = False) -> Iterator[webdriver.Chrome]:
    """A browser with a profile of its own, and no way to a network; ``served``: to 127.0.0.1 there is one."""
    with TemporaryDirectory(prefix="gpuvm-chromium-") as profile:
        options = Options()
        options.binary_location = CHROMIUM or ""
        for flag in (*_FLAGS, f"--user-data-dir={profile}", f"--window-size={WIDTH},{HEIGHT}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
        try:
            metrics = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            driver.execute_cdp_cmd("Network.enable", {})
            if not served:
                offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
                driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
            yield driver
        finally:
            driver.quit()
