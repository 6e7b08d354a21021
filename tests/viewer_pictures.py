"""Makes the pictures of pages in docs anew: ``python tests/viewer_pictures.py``, as root, with Chromium."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from selenium.webdriver.common.keys import Keys

from browser import WIDTH, Page, chromium
from gpuvm.trace.trace import Trace
from perfetto_scene import written
from stock_perfetto import perfetto
from tracefile import EXAMPLES, REPOSITORY, STREAMING
from viewer_scenes import write_page

DOCS = REPOSITORY / "docs"
PERFETTO_HEIGHT = 980
# Its groups open, what we do not write closed; the fault selected, and the milliseconds before it in view.
PERFETTO_VIEW = """
const [done] = arguments;
for (const track of app.trace.workspace.flatTracks)
  ['Ftrace Events', 'System'].includes(track.name) ? track.collapse() : track.expand();
const fault = "SELECT id, ts FROM slice WHERE track_id = (SELECT id FROM track WHERE name = 'faults')";
app.trace.engine.query(fault).then(async (result) => {
  const row = result.iter({});
  await app.trace.selection.selectSqlEvent('slice', Number(row.get('id')));
  app.trace.timeline.setViewportTime(BigInt(row.get('ts')) - 3_000_000n, BigInt(row.get('ts')) + 1_000_000n);
  m.redraw();
  done();
});
"""
DARK = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}


def _save(page: Page, name: str) -> None:
    page.settled()
    page.wait("return !gpuvmPage.work.together || gpuvmPage.refined && !gpuvmPage.refined.together")
    page.driver.save_screenshot(str(DOCS / f"viewer-{name}.png"))


def _save_perfetto(recorded: Path) -> None:
    """As Perfetto itself draws the export."""
    with Trace.open(str(recorded)) as trace, perfetto() as stock:
        metrics = {"width": WIDTH, "height": PERFETTO_HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        stock.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        stock.open(written(trace))
        stock.driver.execute_async_script(PERFETTO_VIEW)
        time.sleep(3)  # nothing tells when it has drawn all
        stock.js(
            "[...document.querySelectorAll('.pf-tree-left')]"
            ".find((argument) => argument.textContent.startsWith('address')).scrollIntoView()"
        )
        stock.driver.save_screenshot(str(DOCS / "perfetto.png"))


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

        _save_perfetto(folder / "broken_streaming.gpuvm")

        page = Page(driver, write_page(STREAMING, folder / "streaming.html"))
        _save(page, "streaming")
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", DARK)
        page.find("#address").send_keys("0x3f80340000", Keys.ENTER)
        page.settled()
        page.at(page.call(5200), page.addr(1, 0x3F80340000) + 6).perform()
        _save(page, "address")


if __name__ == "__main__":
    main()
