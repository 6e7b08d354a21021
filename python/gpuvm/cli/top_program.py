"""The program that ``gpuvm top`` watches: it runs under ``gpuvm record``, a process of its own."""

from __future__ import annotations

import argparse
import codecs
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from gpuvm.cli.run import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_SETUP

_PATIENCE: Final = 5.0
"""Seconds from SIGTERM to SIGKILL."""
_OUTPUT_READ: Final = 1 << 16
"""Bytes of its output that are looked at in one go; of more, these are the last."""


class RecordedProgram:
    """Started when made; at the end of its ``with`` it has ended, or is ended.

    Attributes:
        name: the command line, to be shown.
    """

    def __init__(self, words: list[str], arguments: argparse.Namespace, trace: str) -> None:
        """Args: ``arguments`` what `gpuvm.cli.run.add_device` parsed, and ``force``."""
        self.name: Final = "".join(one if one.isprintable() else " " for one in shlex.join(words))
        self._output: Final = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._read = 0
        self._last_words = ""
        self._decoder: Final = codecs.getincrementaldecoder("utf-8")("replace")
        device = ["--chipset", hex(arguments.chipset), "--vram", str(arguments.vram)]
        device += ["--root", arguments.root] if arguments.root is not None else []
        device += ["--userns"] * arguments.userns + ["-f"] * arguments.force
        self._process: Final = subprocess.Popen(
            [sys.executable, "-m", "gpuvm", "record", *device, "-o", trace, "--", *words],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,  # the terminal's signals are ours
        )

    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def not_started(self) -> int | None:
        """The exit code, if it says that there was no program."""
        code = self._process.poll()
        return code if code in (EXIT_SETUP, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND) else None

    def ending(self) -> str:
        """``ended with 0``, ``killed by SIGSEGV``."""
        code = self._process.poll() or 0
        return f"ended with {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"

    def output(self) -> str:
        """What it printed since the last time, standard output and error together."""
        size = os.fstat(self._output.fileno()).st_size
        self._read = max(self._read, size - _OUTPUT_READ)
        block = os.pread(self._output.fileno(), size - self._read, self._read)
        self._read += len(block)
        return self._decoder.decode(block)

    def last_words(self) -> str:
        """What gpuvm itself said at its end: the report, or why there was no program."""
        return self._last_words

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()  # which is handed on to the program
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._read = 0
        printed = self.output()
        self._last_words = printed[printed.rfind("\ngpuvm: ") + 1 :].rstrip("\n")
        self._output.close()
