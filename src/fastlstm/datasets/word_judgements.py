"""What word vectors are measured by: people's judgements of likeness, and analogies."""

from __future__ import annotations

import os

from fastlstm.datasets.files import find_file, read_lines

_WHERE = (
    "fastlstm data get word_eval fetches it. "
    "It is in gensim/test/test_data of github.com/RaRe-Technologies/gensim; put it, plain or packed, into a folder "
    "word_eval and set FASTLSTM_DATA_DIR to the folder above"
)


def wordsim353(path: str | os.PathLike[str] = "word_eval/wordsim353.tsv") -> list[tuple[str, str, float]]:
    """WordSim-353 (Finkelstein et al., 2002): pairs of words, in lower case, and how alike people find them, 0 to 10.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is empty, no UTF-8, or a line is malformed; the message says which.
    """
    path = find_file(path, _WHERE)
    judged = []
    for number, line in enumerate(read_lines(path), 1):
        if line.startswith("#") or not line.strip():
            continue
        try:
            a, b, score = line.split("\t")
            judged.append((a.lower(), b.lower(), float(score)))
        except ValueError:
            raise ValueError(f"{path}, line {number}: {line!r:.60} is no word, word and score, with tabs") from None
    if not judged:
        raise ValueError(f"{path} has comments only, expected lines WORD TAB WORD TAB SCORE")
    return judged


def questions_words(
    path: str | os.PathLike[str] = "word_eval/questions-words.txt",
) -> list[tuple[str, str, str, str]]:
    """Mikolov's 19,544 analogies in lower case: the first word is to the second as the third is to the fourth.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is empty, no UTF-8, or a line is malformed; the message says which.
    """
    path = find_file(path, _WHERE)
    questions = []
    for number, line in enumerate(read_lines(path), 1):
        if line.startswith(":"):  # the name of a section
            continue
        words = line.lower().split()
        if len(words) != 4:
            raise ValueError(f"{path}, line {number}: {line!r:.60} has {len(words)} words, expected 4")
        a, b, c, d = words
        questions.append((a, b, c, d))
    if not questions:
        raise ValueError(f"{path} has names of sections only, expected lines of four words")
    return questions
