"""The manual page and the shells' completions, which a wheel brings and which are made from the parsers.

python -m tools.shipped_files     renew them
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gpuvm.cli.completion import script
from tools.man_page import man_page

FOLDER: Final = Path(__file__).parent.parent / "wheel-data" / "data" / "share"
"""Where maturin takes a wheel's data from; installed as PREFIX/share."""


def shipped_files() -> dict[str, str]:
    """Each file by its path under share/, as it should be."""
    return {
        "man/man1/gpuvm.1": man_page(),
        "bash-completion/completions/gpuvm": script("bash"),
        "zsh/site-functions/_gpuvm": script("zsh"),
        "fish/vendor_completions.d/gpuvm.fish": script("fish"),
    }


if __name__ == "__main__":
    for name, text in shipped_files().items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
