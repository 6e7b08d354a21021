"""``python -m gpuvm``: the command line."""

from __future__ import annotations

import sys

from gpuvm.cli import main

sys.exit(main())
