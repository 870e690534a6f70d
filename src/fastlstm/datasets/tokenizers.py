"""How texts are cut into symbols, the same for all tasks, and how symbols become a text again.

- "blanks": what stands between blanks, as it is written. Right for texts that are split already, such as the Penn
  Treebank.
- "words": words in lower case, apostrophes included, and every other sign for itself.
- "char": every character.
- "janome": Japanese words, by the package of that name, whose dictionary comes with it (the extra "japanese").

But for "char", a line's end is the symbol "<eos>".
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal

Unit = Literal["char", "word"]
UNITS: tuple[Unit, ...] = ("char", "word")
Tokenizer = Literal["blanks", "words", "char", "janome"]
TOKENIZERS: tuple[Tokenizer, ...] = ("blanks", "words", "char", "janome")

END_OF_LINE = "<eos>"  # the word that stands for a line's end
UNKNOWN = "<unk>"  # the word that stands for all that a vocabulary lacks


def check_tokenizer(name: str) -> None:
    """Raise unless there is a tokenizer of that name, and its package is installed."""
    if name not in TOKENIZERS:
        raise ValueError(f"tokenizer is {name!r}, expected one of {', '.join(map(repr, TOKENIZERS))}")
    if name == "janome":
        _janome()


def tokenizer_of(unit: Unit) -> Tokenizer:
    """The usual tokenizer for words or for characters."""
    if unit not in UNITS:
        raise ValueError(f"unit is {unit!r}, expected 'char' or 'word'")
    return "char" if unit == "char" else "blanks"


def named_tokenizer(name: Tokenizer | Unit) -> Tokenizer:
    """A tokenizer by its name or by that of its unit."""
    return "blanks" if name == "word" else name


def unit_of(tokenizer: Tokenizer) -> Unit:
    """Whether a tokenizer cuts into words or into characters."""
    return "char" if tokenizer == "char" else "word"


def split_line(line: str, tokenizer: Tokenizer) -> list[str]:
    """The symbols of a text that is one line; of several lines, whose ends are blanks but for "char"."""
    return _SPLITTERS[tokenizer](line)


def split_symbols(text: str, tokenizer: Tokenizer) -> list[str]:
    """The symbols of a text, with "<eos>" between its lines."""
    return list(text) if tokenizer == "char" else list(split_lines(text.split("\n"), tokenizer))[:-1]


def split_lines(lines: Iterable[str], tokenizer: Tokenizer) -> Iterator[str]:
    """The symbols of lines one after the other, with "<eos>" after each; not for "char"."""
    for line in lines:
        yield from _SPLITTERS[tokenizer](line)
        yield END_OF_LINE


def split_block(text: str, tokenizer: Tokenizer) -> Sequence[str]:
    """The symbols of whole lines, each with its end; the last one may go on behind the block, cut at a blank."""
    if tokenizer == "char":
        return text
    if tokenizer == "blanks" and END_OF_LINE not in text:
        return text.replace("\n", f" {END_OF_LINE} ").split()
    symbols = list(split_lines(text.split("\n"), tokenizer))
    del symbols[-1]  # no line ends where the block ends
    return symbols


def join_symbols(symbols: Sequence[str], tokenizer: Tokenizer) -> str:
    """The text again; blanks that stood side by side are one, and what "words" has made lower case stays so."""
    if tokenizer == "char":
        return "".join(symbols)
    shown = ("\n" if symbol == END_OF_LINE else unescape(symbol, (END_OF_LINE,)) for symbol in symbols)
    joined = _join_japanese(shown) if tokenizer == "janome" else " ".join(shown)
    return joined.replace(" \n", "\n").replace("\n ", "\n")


def split_words_beside(marks: Collection[str], line: str) -> list[str]:
    """What stands between blanks; a word that is written like a mark gets a backslash, so that it is none."""
    words = line.split()
    if any(mark in line for mark in marks):
        words = [f"\\{word}" if word.lstrip("\\") in marks else word for word in words]
    return words


def unescape(word: str, marks: Collection[str]) -> str:
    """A word of `split_words_beside` as it was written."""
    return word[1:] if word.startswith("\\") and word.lstrip("\\") in marks else word


def split_words(text: str) -> list[str]:
    """Words in lower case, apostrophes included, and every other sign for itself; the markup <br /> is a blank.

    The same text in another form of Unicode has the same words (NFC); combining marks belong to what they stand on.
    """
    # The lower case of a capital I with a dot is an i with another dot on it, which no other word has.
    text = unicodedata.normalize("NFC", text).replace("\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}", "i").lower()
    words: list[str] = _word().findall(text.replace("<br />", " "))
    return words


@functools.cache
def _word() -> re.Pattern[str]:
    """A word or another sign, each with its combining marks, which Python's classes leave out."""
    marks = "".join(filter(lambda sign: unicodedata.category(sign)[0] == "M", map(chr, range(sys.maxunicode + 1))))
    # To look for a mark takes long; below U+0300, where nearly all signs of most texts are, there is none.
    above = r"(?![\x00-\u02ff])"
    # Joiners without a width stand within words of Persian and Hindi.
    word = rf"\w+(?:{above}[{marks}\u200c\u200d]+\w*)*"
    return re.compile(rf"{word}(?:['’]{word})*|[^\w\s](?:{above}[{marks}]+)?")


@functools.cache
def _janome() -> Any:
    try:
        from janome.tokenizer import Tokenizer as Janome
    except ImportError:
        raise ValueError(
            "the tokenizer 'janome' needs the package of that name; run: pip install 'fastlstm[japanese]'"
        ) from None
    return Janome(wakati=True)


def _split_japanese(line: str) -> list[str]:
    words = (word for word in _janome().tokenize(line) if not word.isspace())
    return [f"\\{word}" if word.lstrip("\\") == END_OF_LINE else word for word in words]


def _join_japanese(words: Iterable[str]) -> str:
    """Words side by side, with a blank only between two that would be one word of Latin letters or numbers."""
    joined = ""
    parts = []
    for word in words:
        if joined and word and _is_latin(joined[-1]) and _is_latin(word[0]):
            parts.append(" ")
        parts.append(word)
        joined = word
    return "".join(parts)


def _is_latin(sign: str) -> bool:
    return sign.isascii() and sign.isalnum()


_SPLITTERS: dict[Tokenizer, Callable[[str], list[str]]] = {
    "blanks": functools.partial(split_words_beside, (END_OF_LINE,)),
    "words": split_words,
    "char": list,
    "janome": _split_japanese,
}

# Scripts that put no blanks between words, and how long words of a text that is split are at most on average.
_WITHOUT_BLANKS = {
    re.compile("[\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]"): 4,  # kana, Chinese characters
    re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"): 12,  # Thai and Lao, Myanmar, Khmer
}
_WORDS_LOOKED_AT = 5_000


def needs_splitting(words: Iterable[str]) -> bool:
    """Whether the words of a text, by its first ones, are whole clauses of a script without blanks between words."""
    beginning = [word for word in islice(words, _WORDS_LOOKED_AT) if word not in (END_OF_LINE, UNKNOWN)]
    letters = sum(map(len, beginning))
    for script, most in _WITHOUT_BLANKS.items():
        lengths = [len(word) for word in beginning if script.search(word)]
        if 2 * sum(lengths) > letters and sum(lengths) > most * len(lengths):
            return True
    return False
