"""How near translations are to references."""

from __future__ import annotations

from collections.abc import Sequence

from fastlstm.datasets.tokenizers import UNITS, Unit


def bleu(translations: Sequence[str], references: Sequence[str], *, unit: Unit = "word") -> float:
    """BLEU of a whole set, by sacrebleu, from 0 to 100 (Papineni, Roukos, Ward, Zhu, 2002).

    Parameters
    ----------
    translations, references : sequences of str
        One reference a translation. Words stand between blanks, as they were split; nothing is split again.
    unit : "word" or "char"
        Count runs of one to four words, or of as many characters, which is usual for Japanese that is not split.

    Raises
    ------
    ImportError
        sacrebleu is not installed.
    ValueError
        There are not as many references as translations, or none.
    """
    if unit not in UNITS:
        raise ValueError(f"unit is {unit!r}, expected 'char' or 'word'")
    if len(translations) != len(references) or not references:
        raise ValueError(f"{len(translations)} translations and {len(references)} references; expected one each")
    try:
        import sacrebleu
    except ImportError:
        raise ImportError("BLEU needs sacrebleu; run: pip install 'fastlstm[bleu]'") from None
    # force: that the words come split is meant.
    metric = sacrebleu.BLEU(tokenize="none" if unit == "word" else "char", force=True)
    return float(metric.corpus_score(list(translations), [list(references)]).score)
