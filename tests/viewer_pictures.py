"""Makes the pictures of docs/viewer.md anew: ``python tests/viewer_pictures.py``, as root, with Chromium."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from selenium.webdriver.common.keys import Keys

from browser import Page, chromium
from tracefile import EXAMPLES, REPOSITORY, STREAMING
from viewer_scenes import write_page

DOCS = REPOSITORY / "docs"
DARK = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}


def _save(page: Page, name: str) -> None:
    page.settled()
    page.wait("return !gpuvmPage.work.together || gpuvmPage.refined && !gpuvmPage.refined.together")
    page.driver.save_screenshot(str(DOCS / f"viewer-{name}.png"))


def main() -> None:
    with TemporaryDirectory() as name, chromium() as driver:
        folder = Path(name)
        subprocess.run(
            ["cc", "-o", "broken_streaming", EXAMPLES / "broken_streaming.c"], cwd=folder, check=True
        )
        gpuvm = [sys.executable, "-m", "gpuvm", "record", "-o", "broken_streaming.gpuvm", "--"]
        subprocess.run([*gpuvm, "./broken_streaming"], cwd=folder, check=False, capture_output=True)

        page = Page(driver, write_page(folder / "broken_streaming.gpuvm", folder / "broken.html"))
        page.js("gpuvmPage.view.show(26, 49, 0, 1); gpuvmPage.moved()")
        page.keys("n")
        page.tab("Calls")
        _save(page, "fault")

        page = Page(driver, write_page(STREAMING, folder / "streaming.html"))
        _save(page, "streaming")
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", DARK)
        page.find("#address").send_keys("0x3f80340000", Keys.ENTER)
        page.settled()
        page.at(page.call(5200), page.addr(1, 0x3F80340000) + 6).perform()
        _save(page, "address")


if __name__ == "__main__":
    main()
