"""A text of made-up words with the frequencies of a language: no data set has to be there."""

import numpy as np


def load_data(data_type="train", length=929_589, vocab_size=10_000):
    rng = np.random.default_rng(["train", "valid", "test"].index(data_type))
    ids = np.minimum(rng.zipf(1.3, length) - 1, rng.integers(0, vocab_size, length))
    ids[:vocab_size] = np.arange(vocab_size)
    names = [f"word{i}" for i in range(vocab_size)]
    return ids, {name: i for i, name in enumerate(names)}, dict(enumerate(names))
