"""How ``fastlstm generate`` reads what it is asked, and answers: one rule for all tasks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence

from fastlstm.datasets.files import decode_line


def answer_each(texts: Sequence[str], answer: Callable[[str], str]) -> int:
    """Print the answer to each text, without any to each line of stdin, and return the exit code.

    Line k of the output belongs to text or line k. A blank line of stdin is answered by a blank line; so is what
    ``answer`` raises a ValueError for, but that is told on stderr, and in the end the exit code is 2.
    """
    code = 0
    lines: Iterable[str | bytes] = texts or lines_of_stdin()
    for number, asked in enumerate(lines, 1):
        said = ""
        try:
            text = asked if isinstance(asked, str) else decode_line(asked, first=number == 1)
            if texts or text.strip():
                said = answer(text)
        except ValueError as error:
            where = "" if texts else f"stdin, line {number}: "
            print(f"fastlstm: {where}{' '.join(str(error).split())}", file=sys.stderr)
            code = 2
        print(said, flush=True)
    return code


def lines_of_stdin() -> Iterable[bytes]:
    """Those of stdin as they come."""
    if sys.stdin is None:  # closed by who called
        return ()
    # As bytes, so that one line that is no UTF-8 ends nothing. What a program puts in stdin's place may have text only.
    return getattr(sys.stdin, "buffer", None) or (line.encode() for line in sys.stdin)
