"""One colour an object, the same in every picture: the hue follows from its number alone."""

from __future__ import annotations

import math

NO_OBJECT = "#b8bcc4"
_GOLDEN_ANGLE = 137.50776405
# Lightness and chroma in OKLCH. Numbers that lie 8, 13, 21 or 34 apart get nearly the same hue; five shades
# in turn keep them apart.
_SHADES = ((0.63, 0.14), (0.81, 0.10), (0.53, 0.12), (0.72, 0.13), (0.87, 0.08))


def object_colour(number: int) -> str:
    """``#rrggbb`` of object ``number``; 0 (no object) is grey."""
    if number == 0:
        return NO_OBJECT
    lightness, chroma = _SHADES[number % len(_SHADES)]
    return _oklch(lightness, chroma, math.radians(number * _GOLDEN_ANGLE % 360 + 20))


def text_colour(fill: str) -> str:
    """Black or white, whichever reads better on ``#rrggbb``."""
    red, green, blue = (int(fill[i : i + 2], 16) for i in (1, 3, 5))
    return "#ffffff" if 0.30 * red + 0.59 * green + 0.11 * blue < 138 else "#1c2026"


def _oklch(lightness: float, chroma: float, hue: float) -> str:
    # Ottosson's OKLab to linear sRGB.
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    return "#" + "".join(f"{_gamma(part):02x}" for part in linear)


def _gamma(linear: float) -> int:
    linear = min(max(linear, 0.0), 1.0)
    encoded = 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
    return round(255 * encoded)
