"""The page of `gpuvm view`: one file that opens offline, with everything in it.

`viewer.html` is the program, built from ``viewer/`` by ``make viewer``. `document` makes the data that it
draws: `tables` reads the trace's rows into columns, which `columns` makes small; `bundles` draws together
what is too much for a page, `curves` says how full and how fragmented the spaces were.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from pathlib import Path
from typing import Final

from gpuvm.report.page.document import page_document
from gpuvm.trace.trace import Trace

_TEMPLATE: Final = Path(__file__).with_name("viewer.html")


def page(trace: Trace, *, client: int | None = None) -> str:
    """The page as text, ASCII but for what the viewer itself says.

    Nothing that a trace holds becomes markup: it is one inert JSON element. The page's policy lets the
    browser run the viewer and nothing else, and load nothing. Cost: O(n log n); some seconds for a million
    calls.

    Args:
        trace: what it shows.
        client: only this one, by its recorded number; None: all.

    Raises:
        TraceError: there is no such client, or there are more calls than a page can hold.
    """
    document = page_document(trace, client)
    text = _TEMPLATE.read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src {_hash(text, 'script')}; style-src {_hash(text, 'style')}; "
        "base-uri 'none'; form-action 'none'"
    )
    # In this order, each once: what is put in is not searched again.
    parts = []
    for marker, value in (
        ("%POLICY%", policy),
        ("%TITLE%", html.escape(_plain(f"{document['name']} – gpuvm view"))),
        ("%DATA%", json.dumps(document, separators=(",", ":")).replace("<", "\\u003c")),
    ):
        before, _, text = text.partition(marker)
        parts += [before, value]
    return "".join([*parts, text])


def _plain(text: str) -> str:
    """Without what UTF-8 has no bytes for; a file name may hold it."""
    return text.encode("utf-8", "backslashreplace").decode()


def _hash(text: str, element: str) -> str:
    """A policy's word for the viewer's own element."""
    content = text.split(f"<{element}>", 1)[1].split(f"</{element}>", 1)[0]
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
