"""Word vectors beside gensim's at equal settings: skip-gram with negative sampling, in turns, ours on one thread.

``python -m benchmarks.word_vectors [--rounds 3] [--epochs 5] [--workers 1]`` needs gensim and text8, or its beginning,
below FASTLSTM_DATA_DIR.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import fastlstm
from fastlstm import datasets, ops
from fastlstm.datasets.words import Words, text8_path
from fastlstm.models import Word2Vec, WordVectors

E, WINDOW, NEGATIVES, MIN_COUNT, SUBSAMPLE = 128, 5, 5, 5, 1e-3
SENTENCE = 10_000  # the longest that gensim takes


class Result(NamedTuple):
    seconds: float
    vectors: WordVectors


def train_ours(words: Words, epochs: int, seed: int, _: int) -> Result:
    model = Word2Vec(
        len(words.vocabulary),
        E,
        loss="negative_sampling",
        num_sampled=NEGATIVES,
        window=WINDOW,
        counts=words.counts,
        seed=seed,
    )
    model.vocabulary = words.vocabulary
    since = time.perf_counter()
    model.fit(words.ids, epochs=epochs, subsample=SUBSAMPLE, verbose=0)
    return Result(time.perf_counter() - since, model.words)


def train_gensim(words: Words, epochs: int, seed: int, workers: int) -> Result:
    from gensim.models import Word2Vec as Gensim

    text = [words.vocabulary[i] for i in words.ids]
    sentences = [text[start : start + SENTENCE] for start in range(0, len(text), SENTENCE)]
    model = Gensim(
        vector_size=E,
        window=WINDOW,
        min_count=MIN_COUNT,
        sg=1,
        negative=NEGATIVES,
        sample=SUBSAMPLE,
        workers=workers,
        seed=seed,
    )
    model.build_vocab(sentences)
    since = time.perf_counter()
    model.train(sentences, total_examples=len(sentences), epochs=epochs)
    return Result(time.perf_counter() - since, WordVectors(model.wv.index_to_key, model.wv.vectors))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="gensim's threads")
    args = parser.parse_args()
    fastlstm.set_num_threads(1)
    words = datasets.read_words(text8_path(), min_count=MIN_COUNT)
    words = words._replace(ids=words.ids[words.ids >= 0])
    judged, questions = datasets.wordsim353(), datasets.questions_words()
    share = words.counts / words.counts.sum()
    kept = ops.subsample(words.ids, (SUBSAMPLE / share) ** 0.5 + SUBSAMPLE / share, seed=0)
    pairs = len(ops.skipgram_pairs(kept, WINDOW, seed=0).centers)
    print(f"{len(words.ids):,} words of {len(words.vocabulary):,}, about {pairs:,} pairs an epoch")
    for seed in range(1, args.rounds + 1):
        for name, train in (("fastlstm", train_ours), ("gensim", train_gensim)):
            seconds, vectors = train(words, args.epochs, seed, args.workers)
            print(
                f"{name:8}  seed {seed}  {seconds:6.2f} s  {len(words.ids) * args.epochs / seconds:9,.0f} words/s  "
                f"{pairs * args.epochs / seconds / 1e6:.2f} million pairs/s  "
                f"Spearman {vectors.agreement(judged).spearman:.3f}  "
                f"analogies {vectors.accuracy(questions).accuracy:.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
