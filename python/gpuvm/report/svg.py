"""SVG by hand: shapes appended in drawing order, then one text."""

from __future__ import annotations

import re
from html import escape

SANS = "ui-sans-serif, system-ui, 'DejaVu Sans', 'Liberation Sans', Arial, sans-serif"
MONO = "ui-monospace, 'DejaVu Sans Mono', 'Liberation Mono', Menlo, Consolas, monospace"
_FORBIDDEN = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def number(value: float) -> str:
    """A coordinate with one decimal at most."""
    text = f"{value:.1f}"
    return text.removesuffix(".0")


class Svg:
    """A drawing of a given width that grows downwards."""

    def __init__(self, width: float) -> None:
        """Args: ``width`` in pixels."""
        self.width = width
        self._defs: list[str] = []
        self._body: list[str] = []

    def define(self, markup: str) -> None:
        """Something to refer to, such as a pattern."""
        self._defs.append(markup)

    def rect(self, x: float, y: float, width: float, height: float, fill: str, **attributes: str) -> None:
        """A rectangle; ``title`` is shown when the pointer rests on it."""
        title = attributes.pop("title", "")
        where = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
        self._element("rect", f'{where} fill="{fill}"{_attributes(attributes)}', title)

    def path(self, data: str, **attributes: str) -> None:
        """A path of SVG path data."""
        self._element("path", f'd="{data}"{_attributes(attributes)}', "")

    def line(self, x1: float, y1: float, x2: float, y2: float, stroke: str, **attributes: str) -> None:
        """A line, one pixel wide unless said otherwise."""
        where = f'x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}"'
        self._element("line", f'{where} stroke="{stroke}"{_attributes(attributes)}', "")

    def text(self, x: float, y: float, text: str, css: str, **attributes: str) -> None:
        """Text with its baseline at ``y``; ``css`` names a class of the style sheet."""
        where = f'x="{number(x)}" y="{number(y)}" class="{css}"{_attributes(attributes)}'
        self._body.append(f"<text {where}>{escape(printable(text))}</text>")

    def _element(self, tag: str, inner: str, title: str) -> None:
        if title:
            self._body.append(f"<{tag} {inner}><title>{escape(printable(title))}</title></{tag}>")
        else:
            self._body.append(f"<{tag} {inner}/>")

    def document(self, height: float, title: str, style: str) -> str:
        """The whole file; self-contained, opens offline."""
        size = f'width="{number(self.width)}" height="{number(height)}"'
        box = f'viewBox="0 0 {number(self.width)} {number(height)}"'
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {box} role="img">',
            f"<title>{escape(printable(title))}</title>",
            f"<style>{style}</style>",
            "<defs>",
            *self._defs,
            "</defs>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *self._body,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"


def printable(text: str) -> str:
    """The text without characters that XML 1.0 forbids."""
    return _FORBIDDEN.sub("?", text)


def _attributes(attributes: dict[str, str]) -> str:
    pairs = ((name.replace("_", "-"), escape(value)) for name, value in attributes.items())
    return "".join(f' {name}="{value}"' for name, value in pairs)
