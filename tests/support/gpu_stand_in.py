"""A stand-in for CuPy and an extension in the places of ``cupy`` and ``fastlstm._cuda``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy_as_cupy
import pytest

from fastlstm import backends


@contextmanager
def installed(extension: Any) -> Iterator[pytest.MonkeyPatch]:
    """Afterwards everything is as before, with what the patch it yields has changed."""
    patch = pytest.MonkeyPatch()
    _forget()
    for name in list(sys.modules):
        if name.startswith(("fastlstm.backends.cuda", "fastlstm.ops.graph")):
            patch.delitem(sys.modules, name)
    numpy_as_cupy.install(patch, numpy_as_cupy.Extension(extension))
    try:
        yield patch
    finally:
        patch.undo()
        _forget()


def _forget() -> None:
    """What was found out about backends."""
    backends.why_not.cache_clear()
    backends.load_family.cache_clear()
