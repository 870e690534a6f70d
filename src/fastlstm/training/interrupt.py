"""Ctrl-C between two batches instead of in the middle of one."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Self


class SoftInterrupt:
    """Inside the block the first Ctrl-C only sets ``asked``; the second raises KeyboardInterrupt at once.

    Does nothing outside the main thread, or where the program handles Ctrl-C in its own way.

    Parameters
    ----------
    say : bool
        Whether to tell, on stderr, that it was heard.
    """

    def __init__(self, *, say: bool = True) -> None:
        self.asked = False
        self._say = say
        self._installed = False

    def __enter__(self) -> Self:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
            self._installed = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, _signum: int, _frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._say:
            print("\nstopping after this batch; Ctrl-C again stops at once", file=sys.stderr)
