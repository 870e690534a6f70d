"""Run a script of the book's without changing it: ``python -m fastlstm.compat.dlfs2 train.py``."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from fastlstm.compat.dlfs2 import install


def main(arguments: list[str]) -> None:
    """Run the script ``arguments[0]`` with the arguments that follow, as ``python SCRIPT ...`` would."""
    if not arguments or arguments[0].startswith("-"):
        raise SystemExit("usage: python -m fastlstm.compat.dlfs2 SCRIPT [ARGUMENT ...]")
    script = Path(arguments[0])
    if not script.is_file():
        raise SystemExit(f"{script} is no file")
    install()
    sys.argv = arguments
    sys.path[0] = str(script.resolve().parent)
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
