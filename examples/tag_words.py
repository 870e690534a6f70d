"""Find names in sentences: a bidirectional tagger, on a file in CoNLL's format or on sentences that are made up here.

    python examples/tag_words.py [train.conll [test.conll]]

In such a file a line is a word, other columns if any, and a label ("B-PER", "I-PER", "O"; or parts of speech), apart by
blanks; an empty line ends a sentence. Without a file, sentences of a small grammar: its names are persons, places and
companies by what stands before *and* behind them, so that no word tells by itself, nor those before it alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm import callbacks, datasets, optim
from fastlstm.models import SequenceTagger

Sentences = tuple[list[list[str]], list[list[str]]]  # words, and their labels

NAMES = ("Washington", "Jordan", "Paris", "Ford", "Chester", "Austin", "Sydney", "Lincoln")
FRAMES = (
    ("yesterday {PER} said so", "{PER} laughed", "they asked {PER} whether it rained"),
    ("they flew to {LOC} in the morning", "{LOC} is a quiet town", "the road to {LOC} is long"),
    ("shares of {ORG} fell", "{ORG} sold its plants", "they asked {ORG} for its price"),
)


def read_conll(path: str | Path) -> Sentences:
    """The sentences of a file: first column and last column, and what begins with -DOCSTART- left out."""
    words: list[list[str]] = [[]]
    labels: list[list[str]] = [[]]
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        columns = line.split()
        if not columns or columns[0] == "-DOCSTART-":
            words.append([])
            labels.append([])
        elif len(columns) == 1:
            raise ValueError(f"{path}, line {number}: {line!r} has one column, expected a word and a label")
        else:
            words[-1].append(columns[0])
            labels[-1].append(columns[-1])
    return [row for row in words if row], [row for row in labels if row]


def made_up(N: int, seed: int = 0) -> Sentences:
    """Sentences of the grammar above, two joined by "and"; names of one word or two."""
    rng = np.random.default_rng(seed)
    words, labels = [], []
    for _ in range(N):
        said: list[str] = []
        told: list[str] = []
        for part in range(2):
            said += ["and"] * part
            told += ["O"] * part
            frames = FRAMES[rng.integers(len(FRAMES))]
            for word in frames[rng.integers(len(frames))].split():
                name = [NAMES[i] for i in rng.choice(len(NAMES), rng.integers(1, 3), replace=False)]
                kind = word.strip("{}")
                said += name if kind != word else [word]
                told += [f"B-{kind}", *[f"I-{kind}"] * (len(name) - 1)] if kind != word else ["O"]
        words.append(said)
        labels.append(told)
    return words, labels


def main(files: list[str], *, epochs: int = 15, sentences: int = 600) -> dict[str, float]:
    training = read_conll(files[0]) if files else made_up(sentences)
    if len(files) > 1:
        test = read_conll(files[1])
    else:  # its last tenth
        split = len(training[0]) - max(1, len(training[0]) // 10)
        training, test = tuple(part[:split] for part in training), tuple(part[split:] for part in training)
    vocabulary = datasets.Vocabulary(["<unk>", *sorted({word for row in training[0] for word in row})])
    classes = sorted({label for row in (*training[1], *test[1]) for label in row})
    id_of = {word: i for i, word in enumerate(vocabulary)}

    def ids(rows: list[list[str]]) -> list[list[int]]:
        return [[id_of.get(word, 0) for word in row] for row in rows]

    model = SequenceTagger(
        len(vocabulary), 32, 32, len(classes), bidirectional=True, dropout=0.3, vocabulary=vocabulary, seed=0
    )
    model.classes = classes
    of_chunks = all(label == "O" or label[:2] in ("B-", "I-") for label in classes)
    metric = "f1" if of_chunks else "accuracy"
    model.fit(
        ids(training[0]),
        training[1],
        epochs=epochs,
        bucket_by_length=True,
        optimizer=optim.Adam(0.01),
        max_grad=5.0,
        validation_split=0.1,
        metrics=(metric,),
        callbacks=[callbacks.EarlyStopping(f"val_{metric}", mode="max", patience=5, restore_best_weights=True)],
    )
    scores: dict[str, Any] = model.evaluate(ids(test[0]), test[1])
    print(", ".join(f"{name} {value:.3f}" for name, value in scores.items()), f"on {len(test[0])} other sentences")
    for word, label in zip(test[0][0], model.predict_names(ids(test[0][:1]))[0], strict=True):
        print(f"  {word:15} {label}")
    return scores


if __name__ == "__main__":
    main(sys.argv[1:])
