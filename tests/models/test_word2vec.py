"""Word2Vec: gradients, learning, neighbours, files of word2vec; texts as ids of words; the command line."""

from __future__ import annotations

import gzip
import json
import lzma
import math
import os
import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import error_of, interrupt_a_training, without_seconds

import fastlstm
from fastlstm import callbacks, datasets, ops, optim
from fastlstm.cli import main
from fastlstm.contract import FloatArray, IntArray
from fastlstm.datasets import words as words_module
from fastlstm.layers.seeds import Seeds
from fastlstm.models import RNNLM, Word2Vec, WordVectors, skipgram_batches
from fastlstm.models.word_vectors import rank_correlation
from fastlstm.testing import check_gradient
from fastlstm.training import History

V, E = 12, 5
LOSSES = ("nce", "negative_sampling", "sampled_softmax")
# Words 0 to 5 stand near each other, and so do words 6 to 11.
_RNG = np.random.default_rng(0)
TWO_TOPICS = np.concatenate([np.append(6 * (k % 2) + _RNG.integers(0, 6, 20), -1) for k in range(200)])


def make(loss: str = "nce", **options: Any) -> Word2Vec:
    """A small model in float64 whose weights are large enough for every gradient to count."""
    model = Word2Vec(V, E, **{"loss": loss, "num_sampled": 4, "window": 3, "seed": 1, "dtype": "float64", **options})
    rng = np.random.default_rng(2)
    for param in model.params:
        param += 0.5 * rng.standard_normal(param.shape)
    return model


def fit(model: Word2Vec, corpus: IntArray = TWO_TOPICS, **options: Any) -> History:
    return model.fit(corpus, **{"epochs": 3, "batch_size": 64, "subsample": None, "verbose": 0, **options})


def weights(model: Word2Vec) -> bytes:
    return b"".join(param.tobytes() for param in model.params)


# --------------------------------------------------------------------------------------------
# Forward and backward
# --------------------------------------------------------------------------------------------

XS, TS = _RNG.integers(0, V, (2, 30))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients(loss: str) -> None:
    model = make(loss, counts=np.arange(1, V + 1))
    params = dict(model.named_parameters())

    def loss_of(**arrays: FloatArray) -> float:
        model.set_weights({name.replace("__", "."): array for name, array in arrays.items()}, "here")
        model._output.seeds = Seeds(np.random.default_rng(3))  # the same sample every time
        return model.forward(XS, TS)

    start = {name.replace(".", "__"): param.copy() for name, param in params.items()}
    loss_of(**start)
    model.backward()
    grads = {name.replace(".", "__"): grad.copy() for name, grad in zip(params, model.grads, strict=True)}
    rows = model.row_gradients()
    check_gradient(loss_of, start, grads)
    for grad, (indices, values) in zip(grads.values(), rows, strict=True):
        dense = np.zeros_like(grad)
        dense[indices] = values
        np.testing.assert_allclose(dense, grad, rtol=1e-13)


def test_parameters_and_summary(capsys: pytest.CaptureFixture[str]) -> None:
    for loss, names in (("nce", 3), ("sampled_softmax", 3), ("negative_sampling", 2)):
        model = Word2Vec(V, E, loss=loss, seed=0)
        assert len(model.params) == names
        assert model.num_parameters == 2 * V * E + (V if names == 3 else 0)
        assert f"{model.num_parameters} parameters" in model.summary()
        assert model.vectors is model.params[0]
        assert model.vectors.dtype == np.float32
    capsys.readouterr()


def test_initial_weights_are_those_of_the_programs_they_are_after() -> None:
    nce, pairs = Word2Vec(2000, 64, seed=0), Word2Vec(2000, 64, seed=0, loss="negative_sampling")
    assert abs(nce.vectors).max() == pytest.approx(1, abs=1e-3)
    assert nce.vectors.std() == pytest.approx(1 / math.sqrt(3), rel=0.01)
    assert nce.params[1].std() == pytest.approx(1 / 8, rel=0.01)
    assert not nce.params[2].any()
    assert abs(pairs.vectors).max() == pytest.approx(1 / 128, abs=1e-5)
    assert not pairs.params[1].any()


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"loss": "hs"}, ValueError, "loss is 'hs', expected one of 'nce', 'negative_sampling', 'sampled_softmax'"),
        ({"num_sampled": 0}, ValueError, "num_sampled is 0, expected at least 1"),
        ({"window": 0}, ValueError, "window is 0, expected at least 1"),
        ({"vocab_size": 2.5}, TypeError, r"vocab_size is float 2\.5, expected a whole number"),
        ({"counts": [1, 2]}, ValueError, r"counts is int64 of shape \(2,\), expected \(V,\) = \(12,\) whole numbers"),
        ({"counts": np.zeros(V, int)}, ValueError, "not all zero"),
        ({"counts": np.ones(V)}, ValueError, "counts is float64"),
        ({"dtype": "float16"}, ValueError, "dtype is 'float16', expected one of 'float32', 'float64'"),
    ],
)
def test_wrong_options(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Word2Vec(**{"vocab_size": V, "vector_size": E, **wrong})


def test_texts_that_cannot_be_learned() -> None:
    model = make()
    for corpus, error, message in (
        (np.zeros((2, 3), int), ValueError, r"corpus has shape \(2, 3\), expected one axis"),
        (np.zeros(4), TypeError, "corpus has dtype float64, expected integer ids"),
        (np.array([0, V]), IndexError, r"corpus holds 12, expected -1 to 11 \(vocab_size = 12\)"),
        (np.array([0, -2]), IndexError, "corpus holds -2"),
        (np.array([], int), ValueError, "corpus has 0 ids, expected at least two words side by side in one sentence"),
        (np.array([3, -1, 3]), ValueError, "corpus has 3 ids, expected at least two words side by side"),
    ):
        before = weights(model)
        with pytest.raises(error, match=message):
            model.fit(corpus, epochs=1, verbose=0)
        assert weights(model) == before
    with pytest.raises(ValueError, match="subsampling left 0 of 2 words and no pair .* larger subsample than 1e-12"):
        model.fit(np.array([0, 1]), epochs=1, subsample=1e-12, verbose=0)
    assert weights(model) == before
    with pytest.raises(ValueError, match=r"ts has shape \(1,\), expected \(2,\)"):
        model.check_batch([1, 2], [1])
    with pytest.raises(IndexError, match="xs holds -1, expected 0 to 11"):
        model.check_batch([-1, 2], [1, 2])
    for wrong in ({"epochs": -1}, {"batch_size": 0}, {"subsample": 0.0}, {"final_lr": -1.0}, {"max_grad": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            fit(model, **wrong)


# --------------------------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_words_that_stand_near_each_other_become_alike(loss: str) -> None:
    rate = {"nce": 1.0, "negative_sampling": 0.1, "sampled_softmax": 1.0}[loss]
    model = Word2Vec(V, 8, loss=loss, num_sampled=4, window=3, seed=0)
    history = fit(model, epochs=12, optimizer=optim.SGD(rate)).history["loss"]
    assert len(history) == 12
    assert history[-1] < history[0]
    for word in range(V):
        likest = {int(name) for name, _ in model.most_similar(word, 5)}
        assert likest == set(range(6 * (word // 6), 6 * (word // 6) + 6)) - {word}
    p = model.predict(np.arange(V))
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert p[:6, :6].sum() > 0.8 * 6
    assert (
        model.evaluate(TWO_TOPICS)["loss"]
        < Word2Vec(V, 8, loss=loss, num_sampled=4, seed=0).evaluate(TWO_TOPICS)["loss"]
    )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adagrad", "adam"])
def test_every_optimizer_takes_the_rows_that_change(loss: str, optimizer: str) -> None:
    model = make(loss)
    before = model.vectors.copy()
    fit(model, np.array([1, 2, 3, 1, 2, 3]), optimizer=optimizer, epochs=2)
    changed = (model.vectors != before).any(axis=1)
    assert changed[[1, 2, 3]].all()
    assert not changed[4:].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_seed_fixes_every_bit_for_any_number_of_threads(loss: str) -> None:
    made = []
    for threads in (1, 2):
        fastlstm.set_num_threads(threads)
        model = Word2Vec(300, 64, loss=loss, num_sampled=32, seed=5)
        fit(model, np.random.default_rng(0).integers(0, 300, 4000), epochs=1, batch_size=1024, subsample=1e-2)
        made.append(weights(model))
    assert made[0] == made[1]


def test_batches_are_the_pairs_of_the_subsampled_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the text is cut into pieces: all pairs once, in order, in whole batches but for a piece's last."""
    corpus = np.random.default_rng(1).integers(0, V, 500)
    model = make()
    monkeypatch.setattr(skipgram_batches, "PIECE", 100)
    seen = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda xs, ts: seen.append((xs, ts)) or forward(xs, ts))  # type: ignore[func-returns-value]
    state = model.rng.bit_generator.state
    fit(model, corpus, epochs=1, batch_size=50, subsample=0.01)
    model.rng.bit_generator.state = state
    keep_seed, reach_seed = model.rng.integers(0, 2**64, 2, np.uint64).tolist()
    share = np.bincount(corpus) / len(corpus)
    kept = ops.subsample(corpus, np.sqrt(0.01 / share) + 0.01 / share, seed=keep_seed)
    assert len(kept) < 400
    pairs = ops.skipgram_pairs(kept, 3, seed=reach_seed)
    np.testing.assert_array_equal(np.concatenate([xs for xs, _ in seen]), pairs.centers)
    np.testing.assert_array_equal(np.concatenate([ts for _, ts in seen]), pairs.contexts)
    sizes = [len(xs) for xs, _ in seen]
    assert max(sizes) == 50
    assert sum(size < 50 for size in sizes) <= -(-len(kept) // 100)


def test_the_learning_rate_falls_evenly() -> None:
    rates = []

    class Watched(optim.SGD):
        def update(self, *arguments: Any, **options: Any) -> None:
            rates.append(self.lr)
            super().update(*arguments, **options)

    fit(make(), epochs=2, optimizer=Watched(1.0), final_lr=0.2, batch_size=1000)
    assert rates[0] == 1.0
    assert 0.2 < rates[-1] < 0.3
    np.testing.assert_allclose(np.diff(rates), np.diff(rates)[0], rtol=0.2)
    steady = optim.SGD(0.5)
    fit(make(), optimizer=steady)
    assert steady.lr == 0.5


class CtrlC(callbacks.Callback):
    """Presses Ctrl-C after a batch."""

    def __init__(self, epoch: int, batch: int) -> None:
        super().__init__()
        self.at = (epoch, batch)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float]) -> None:
        if (self.trainer.epoch, batch) == self.at:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("at", [(0, 0), (1, 7), (2, 3)])
def test_an_interrupted_training_goes_on_with_the_same_bits(
    loss: str, at: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skipgram_batches, "PIECE", 300)
    options: dict[str, Any] = {"subsample": 0.01, "final_lr": 0.01, "validation_data": TWO_TOPICS[:100]}
    whole, part, resumed = (make(loss) for _ in range(3))
    wanted = fit(whole, **options).history
    assert set(wanted) == {"loss", "val_loss"}
    backup = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fit(part, callbacks=[callbacks.BackupAndRestore(backup), CtrlC(*at)], **options)
    assert fit(resumed, callbacks=[callbacks.BackupAndRestore(backup)], **options).history == wanted
    assert weights(resumed) == weights(whole)
    with pytest.raises(KeyboardInterrupt):
        fit(part, callbacks=[callbacks.BackupAndRestore(backup), CtrlC(*at)], **options)
    for other in ({"subsample": 0.02}, {"final_lr": 0.02}, {"batch_size": 65}):
        with pytest.raises(ValueError, match="belongs to another training: "):
            fit(make(loss), callbacks=[callbacks.BackupAndRestore(backup)], **{**options, **other})


def test_evaluating_changes_nothing() -> None:
    model = make()
    state = model.rng.bit_generator.state
    before = weights(model)
    first = model.evaluate(TWO_TOPICS, batch_size=100)
    assert first == model.evaluate(TWO_TOPICS, batch_size=100)
    assert first != model.evaluate(TWO_TOPICS, batch_size=100, seed=1)
    assert model.evaluate(XS, TS)["loss"] > 0
    assert (weights(model), model.rng.bit_generator.state) == (before, state)
    with pytest.raises(ValueError, match="unknown metric 'accuracy'; Word2Vec has loss"):
        model.evaluate(XS, TS, metrics=("accuracy",))


# --------------------------------------------------------------------------------------------
# Words
# --------------------------------------------------------------------------------------------

# king - man + woman = queen, and a word that is in the way of nothing.
ROYAL = WordVectors(
    ["man", "woman", "king", "queen", "table", "zero"],
    np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 1, 1], [-1, -1, -1], [0, 0, 0]], np.float32),
)


def test_neighbours_and_analogies_known_by_hand() -> None:
    assert [word for word, _ in ROYAL.most_similar("king", topn=2)] == ["man", "queen"]
    assert ROYAL.most_similar("king", topn=1)[0][1] == pytest.approx(1 / math.sqrt(2))
    assert ROYAL.most_similar(2) == ROYAL.most_similar("king")
    assert len(ROYAL.most_similar("king", topn=100)) == 5
    assert ROYAL.most_similar("king", topn=0) == []
    assert ROYAL.analogy("man", "king", "woman", 1)[0][0] == "queen"
    assert not {"man", "king", "woman"} & {word for word, _ in ROYAL.analogy("man", "king", "woman")}
    assert ROYAL.similarity("man", "king") == pytest.approx(1 / math.sqrt(2))
    assert ROYAL.similarity("man", "zero") == 0
    np.testing.assert_array_equal(ROYAL["queen"], [0, 1, 1])
    assert "king" in ROYAL
    assert "duke" not in ROYAL
    questions = [("man", "king", "woman", "queen"), ("woman", "queen", "man", "king"), ("man", "king", "duke", "queen")]
    assert ROYAL.accuracy(questions) == (1.0, 2, 1)
    assert ROYAL.accuracy([("man", "king", "woman", "table")]) == (0.0, 1, 0)
    np.testing.assert_equal(ROYAL.accuracy([]), (math.nan, 0, 0))
    nothing = WordVectors(ROYAL.vocabulary, np.full_like(ROYAL.vectors, np.nan))
    first, *others = ROYAL.vocabulary
    assert nothing.accuracy([(others[0], others[1], others[2], first)]) == (0.0, 1, 0)
    judged = [("man", "king", 9.0), ("man", "woman", 3.0), ("man", "table", 1.0), ("man", "duke", 5.0)]
    assert ROYAL.agreement(judged) == (1.0, 3, 1)
    np.testing.assert_equal(ROYAL.agreement([("duke", "earl", 9.0)]), (math.nan, 0, 1))


def test_vectors_are_no_masked_array() -> None:
    with pytest.raises(TypeError, match="vectors is a masked array"):
        WordVectors(["a", "b"], np.ma.array(np.ones((2, 3)), mask=True))


def test_words_that_are_not_there() -> None:
    with pytest.raises(ValueError, match="'duke' is not in the vocabulary of 6 words"):
        ROYAL.most_similar("duke")
    with pytest.raises(ValueError, match="the word's id is 6, expected less than 6"):
        ROYAL.analogy("man", "king", 6)
    with pytest.raises(ValueError, match="topn is -1"):
        ROYAL.most_similar("king", topn=-1)
    with pytest.raises(ValueError, match="the vocabulary holds 'a' twice"):
        WordVectors(["a", "b", "a"], np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"vectors is float64 of shape \(3, 2\), expected .* 2 rows"):
        WordVectors(["a", "b"], np.ones((3, 2)))


def test_rank_correlation() -> None:
    assert rank_correlation(np.array([1.0, 5.0, 3.0]), np.array([10.0, 99.0, 11.0])) == 1.0
    assert rank_correlation(np.array([1.0, 2.0]), np.array([2.0, 1.0])) == -1.0
    assert rank_correlation(np.ones(4), np.arange(4.0)) == 0.0
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    x, y = np.random.default_rng(0).integers(0, 9, (2, 50)).astype(float)  # with equals
    assert rank_correlation(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, rel=1e-12)


def test_a_model_saves_and_loads(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = make("negative_sampling", dtype="float32")
    model.vocabulary = [f"w{i}" for i in range(V)]
    fit(model)
    model.save(path)
    again = Word2Vec.load(path)
    assert weights(again) == weights(model)
    assert again.vocabulary == model.vocabulary
    np.testing.assert_array_equal(again.counts, np.bincount(TWO_TOPICS[TWO_TOPICS >= 0]))
    assert again.most_similar("w3") == model.most_similar("w3")
    assert again.analogy("w1", "w2", 3, 4) == model.analogy(1, 2, "w3", 4)
    with pytest.raises(ValueError, match="holds a Word2Vec, expected a RNNLM"):
        RNNLM.load(path)


# --------------------------------------------------------------------------------------------
# Files of word2vec
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [False, True])
def test_files_of_word2vec_hold_every_bit(binary: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((7, 3)) * 10.0 ** rng.integers(-30, 30, (7, 3))).astype(np.float32)
    words = WordVectors(["the", "naïve", "\U0001f600", "語", "a", "0.5", "</s>"], vectors)
    path = tmp_path / "vectors"
    words.save_word2vec_format(path, binary)
    again = WordVectors.load_word2vec_format(path, binary)
    assert again.vocabulary == words.vocabulary
    assert again.vectors.tobytes() == vectors.tobytes()
    model = Word2Vec.load_word2vec_format(path, binary, loss="negative_sampling", seed=0)
    assert model.most_similar("語") == words.most_similar("語")
    model.save_word2vec_format(tmp_path / "again", binary)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("binary", [False, True])
def test_only_the_blanks_of_ascii_separate(binary: bool, tmp_path: Path) -> None:
    vocabulary = ["10\u00a0000", "new\u3000york", "a\u2028b", "c\x85d", "e\x1cf", "\u00a0", "\0"]
    words = WordVectors(vocabulary, np.arange(14, dtype=np.float32).reshape(7, 2))
    words.save_word2vec_format(tmp_path / "one", binary)
    again = WordVectors.load_word2vec_format(tmp_path / "one", binary)
    assert again.vocabulary == vocabulary
    again.save_word2vec_format(tmp_path / "two", binary)
    content = (tmp_path / "one").read_bytes()
    assert (tmp_path / "two").read_bytes() == content
    for packed in (gzip.compress(content), lzma.compress(content), b"\xef\xbb\xbf" + content):
        (tmp_path / "two").write_bytes(packed)
        assert WordVectors.load_word2vec_format(tmp_path / "two", binary).vocabulary == vocabulary


@pytest.mark.parametrize("binary", [False, True])
def test_gensim_reads_and_writes_the_same_files(binary: bool, tmp_path: Path) -> None:
    models = pytest.importorskip("gensim.models", reason="gensim is not installed")
    rng = np.random.default_rng(1)
    ours = WordVectors([f"wörd{i}" for i in range(50)], rng.standard_normal((50, 11)).astype(np.float32))
    ours.save_word2vec_format(tmp_path / "ours", binary)
    read = models.KeyedVectors.load_word2vec_format(tmp_path / "ours", binary=binary)
    assert read.index_to_key == ours.vocabulary
    assert read.vectors.tobytes() == ours.vectors.tobytes()
    read.save_word2vec_format(str(tmp_path / "theirs"), binary=binary)
    again = WordVectors.load_word2vec_format(tmp_path / "theirs", binary)
    assert again.vocabulary == ours.vocabulary
    assert again.vectors.tobytes() == ours.vectors.tobytes()
    for (word, cosine), (their_word, their_cosine) in zip(
        ours.most_similar("wörd3"), read.most_similar("wörd3"), strict=True
    ):
        assert word == their_word
        assert cosine == pytest.approx(their_cosine, abs=1e-6)
    theirs = read.most_similar(positive=["wörd2", "wörd3"], negative=["wörd1"])
    assert [word for word, _ in ours.analogy("wörd1", "wörd2", "wörd3")] == [word for word, _ in theirs]


ROW = b"\0\0\x80?" * 2  # 1.0, 1.0


@pytest.mark.parametrize(
    ("content", "binary", "message"),
    [
        (b"", False, "is no word2vec file: its first line is b''"),
        (b"import numpy\nimport os\n", False, "is no word2vec file: its first line is b'import numpy"),
        (b"2 0\na\nb\n", False, "vectors have 0 dimensions"),
        (b"9999999999 300\na 1\n", False, "is cut short: 9,999,999,999 words of 300 dimensions need at least"),
        (b"9999999999 300\na 1\n", True, "is cut short"),
        (b"2 2\na 1 2\n", False, "is cut short"),
        (b"3 2\na 1.5 2.5\nb 1.25 2.5\n", False, "2 lines of words, expected 3"),
        (b"2 2\na 1 2\nb 1.5\n", False, "line 3: 1 numbers, expected 2"),
        (b"2 2\na 1 2\nb 1 2 3\n", False, "line 3: 3 numbers, expected 2"),
        (b"2 2\na 1 2\nb 1 x\n", False, "line 3: b'b 1 x' is no word with 2 numbers"),
        (b"2 2\na 1 2\n\xff\xfe 1 2\n", False, "word 2: b'.*' is no UTF-8"),
        (b"2 2\na 1 2\na 1 2\n", False, "is damaged: the vocabulary holds 'a' twice"),
        (b"2 2\na " + ROW + b"\nb " + ROW[:-1], True, "cut short: there is no whole word 2 of 2 at byte 14"),
        (b"2 2\naaaa " + ROW + b"\nb " + ROW[:-2], True, "there is no whole word 2 of 2 at byte 17"),
        (b"2 2\na " + ROW + b"\nb " + ROW + b"\nc", True, "is damaged: 2 bytes follow the last of 2 words"),
        (b"2 2\na " + ROW + b"\n " + ROW + b"\n", True, "there is no whole word 2"),
        (b"2 2\na 1.000000 2.0000\nb 1.000000 2.0000\n", True, "is damaged"),
    ],
)
def test_files_of_word2vec_that_are_damaged(content: bytes, binary: bool, message: str, tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        WordVectors.load_word2vec_format(path, binary)


def test_words_that_the_format_cannot_hold(tmp_path: Path) -> None:
    for word in ("new york", "", "line\nend", " ", "a\tb", "a\r", "\x0b", "a\x0cb"):
        with pytest.raises(ValueError, match="is empty or has a blank in it"):
            WordVectors([word], np.ones((1, 2))).save_word2vec_format(tmp_path / "vectors")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        WordVectors.load_word2vec_format(tmp_path)
    assert not (tmp_path / "vectors").exists()


# --------------------------------------------------------------------------------------------
# Texts as ids of words
# --------------------------------------------------------------------------------------------

LINES = "the cat saw the dog\n\n\nthe dog ran\na cat\n"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(LINES)
    return path


def test_words_get_ids_by_how_often_they_occur(text: Path) -> None:
    ids, vocabulary, counts = datasets.read_words(text)
    assert vocabulary == ["the", "cat", "dog", "saw", "ran", "a"]
    assert counts.tolist() == [3, 2, 2, 1, 1, 1]
    assert ids.tolist() == [0, 1, 3, 0, 2, -1, 0, 2, 4, -1, 5, 1]
    ids, vocabulary, counts = datasets.read_words(text, min_count=2)
    assert (vocabulary, ids.tolist()) == (["the", "cat", "dog"], [0, 1, 0, 2, -1, 0, 2, -1, 1])
    ids, vocabulary, counts = datasets.read_words(text, max_words=3, unknown=True)
    assert (vocabulary, counts.tolist()) == (["UNK", "the", "cat"], [5, 3, 2])
    assert ids.tolist() == [1, 2, 0, 1, 0, -1, 1, 0, 0, -1, 0, 2]


@pytest.mark.parametrize("letters", [1, 2, 7, 30])
def test_a_text_may_be_read_in_pieces_of_any_length(text: Path, letters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = datasets.read_words(text)
    monkeypatch.setattr(words_module, "_LETTERS_AT_ONCE", letters)
    pieces = datasets.read_words(text)
    np.testing.assert_array_equal(pieces.ids, whole.ids)
    assert pieces.vocabulary == whole.vocabulary


@pytest.mark.parametrize("letters", [3, 1 << 22])
def test_no_word_ends_a_sentence(letters: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words_module, "_LETTERS_AT_ONCE", letters)
    path = tmp_path / "text.txt"
    path.write_text("a \0 b \0\n\0 a\n")
    ids, vocabulary, counts = datasets.read_words(path)
    assert (vocabulary, counts.tolist(), ids.tolist()) == (["\0", "a", "b"], [3, 2, 1], [1, 0, 2, 0, -1, 0, 1])


def test_texts_without_words_enough(text: Path) -> None:
    with pytest.raises(ValueError, match="no word occurs 4 times; a smaller min_count helps"):
        datasets.read_words(text, min_count=4)
    with pytest.raises(ValueError, match="no word occurs 5 times; by blanks whole clauses are words"):
        datasets.count_words(["親譲りの無鉄砲で小供の時から", "損ばかりしている。"], min_count=5)
    with pytest.raises(ValueError, match="max_words is 0, expected at least 1"):
        datasets.read_words(text, max_words=0)
    text.write_text("UNK is a word")
    with pytest.raises(ValueError, match="'UNK' is a word of the text"):
        datasets.read_words(text, unknown=True)
    assert datasets.read_words(text).vocabulary == ["UNK", "is", "a", "word"]


def test_judgements_of_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTLSTM_DATA_DIR", str(tmp_path))
    for read in (datasets.wordsim353, datasets.questions_words):
        with pytest.raises(FileNotFoundError, match="gensim/test/test_data"):
            read()
    path = tmp_path / "pairs.tsv"
    path.write_text("# a comment\nTiger\tcat\t7.35\n\nlove\tsex\t6.77\n")
    assert datasets.wordsim353(path) == [("tiger", "cat", 7.35), ("love", "sex", 6.77)]
    path.write_text("tiger\tcat\n")
    with pytest.raises(ValueError, match=r"line 1: 'tiger\\tcat' is no word, word and score"):
        datasets.wordsim353(path)
    path.write_text(": capitals\nAthens Greece Oslo Norway\n")
    assert datasets.questions_words(path) == [("athens", "greece", "oslo", "norway")]
    path.write_text("# a comment\n")
    with pytest.raises(ValueError, match="has comments only"):
        datasets.wordsim353(path)
    path.write_text(": capitals\n")
    with pytest.raises(ValueError, match="has names of sections only"):
        datasets.questions_words(path)
    path.write_text(": capitals\nAthens Greece Oslo\n")
    with pytest.raises(ValueError, match="line 2: 'Athens Greece Oslo' has 3 words, expected 4"):
        datasets.questions_words(path)


# --------------------------------------------------------------------------------------------
# Real data
# --------------------------------------------------------------------------------------------

needs_data = pytest.mark.skipif("FASTLSTM_DATA_DIR" not in os.environ, reason="FASTLSTM_DATA_DIR is not set")


@needs_data
def test_the_beginning_of_text8_has_the_size_it_should() -> None:
    path = words_module.text8_path()
    if "text8_slice" not in str(path):
        pytest.skip("the whole text8 is there, not its beginning")
    kept = datasets.read_words(path, min_count=5)
    assert len(kept.vocabulary) == 15_440
    assert kept.vocabulary[:3] == ["the", "of", "one"]
    known = datasets.read_words(path, max_words=50_000, unknown=True)
    assert len(known.ids) == known.counts.sum() == 1_171_946
    assert len(known.vocabulary) == 50_000
    assert Counter(known.ids.tolist())[0] == known.counts[0] == 57_993 - 49_999  # each of them occurs once
    assert len(datasets.wordsim353()) == 353
    assert len(datasets.questions_words()) == 19_544


@needs_data
@pytest.mark.slow
def test_vectors_of_real_words_agree_with_people() -> None:
    words = datasets.read_words(words_module.text8_path(), min_count=5)
    model = Word2Vec(len(words.vocabulary), 64, loss="negative_sampling", num_sampled=5, counts=words.counts, seed=0)
    model.vocabulary = words.vocabulary
    model.fit(words.ids[:1_200_000], epochs=3, verbose=0)
    assert model.words.agreement(datasets.wordsim353()).spearman > 0.3
    assert len({"two", "three", "four", "five", "six", "seven"} & {word for word, _ in model.most_similar("eight")}) > 3


# --------------------------------------------------------------------------------------------
# fastlstm train word2vec
# --------------------------------------------------------------------------------------------

RUN_FILES = {"model.safetensors", "vectors.txt", "history.csv", "config.json", "loss.png", "words.png"}
SMALL = ["--vector-size", "8", "--epochs", "3", "--num-sampled", "3", "--min-count", "1", "--subsample", "0"]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small text and a few judgements in an otherwise empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTLSTM_DATA_DIR", str(tmp_path))
    path = tmp_path / "text.txt"
    rng = np.random.default_rng(0)
    topics = [["cat", "dog", "mouse", "horse", "cow", "pig"], ["one", "two", "three", "four", "five", "six"]]
    path.write_text("\n".join(" ".join(rng.choice(topics[k % 2], 12)) for k in range(200)) + "\n")
    (tmp_path / "word_eval").mkdir()
    (tmp_path / "word_eval" / "wordsim353.tsv").write_text("cat\tdog\t9\nCat\tone\t1\nduke\tearl\t8\n")
    return path


def files_of(loss: str) -> set[str]:
    """Where the learning rate falls from the first batch on, there is nothing that a longer run could go on from."""
    return RUN_FILES if loss == "negative_sampling" else {*RUN_FILES, "checkpoint.safetensors"}


def train(*arguments: str | Path) -> int:
    return main(["train", "word2vec", *map(str, arguments)])


@pytest.mark.parametrize("loss", LOSSES)
def test_training_leaves_a_run_folder(loss: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--data", "text.txt", *SMALL, "--loss", loss, "--epochs", "20") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("epoch 20/20  loss ") for line in lines)
    assert "words a second" in lines[-3]
    near = dict(line.removeprefix("near ").split(": ") for line in lines if line.startswith("near "))
    assert len(near) == 8
    animals = {"cat", "dog", "mouse", "horse", "cow", "pig"}
    assert all({*near[word].split(", ")[:3]} < animals for word in animals & near.keys()) or loss != "negative_sampling"
    assert lines[-2] == "wordsim353: Spearman 1.000 over 2 of 3 pairs"
    assert lines[-1] == "run folder: runs/word2vec-1"
    run = Path("runs/word2vec-1")
    assert {path.name for path in run.iterdir()} == files_of(loss)
    for picture in ("loss.png", "words.png"):
        assert (run / picture).read_bytes().startswith(b"\x89PNG")
    assert (run / "history.csv").read_text().startswith("epoch,loss,learning_rate,seconds\n1,")
    config = json.loads((run / "config.json").read_text())
    assert config["options"]["data"] == str(data)
    assert config["options"]["unknown"] == (loss != "negative_sampling")
    assert config["result"]["wordsim353"] == pytest.approx(1.0)
    model = Word2Vec.load(run / "model.safetensors")
    vectors = WordVectors.load_word2vec_format(run / "vectors.txt")
    assert vectors.vocabulary == model.vocabulary
    assert vectors.vectors.tobytes() == model.vectors.tobytes()
    assert ("UNK" in vectors) == (loss != "negative_sampling")


@pytest.mark.parametrize("loss", ["nce", "negative_sampling"])
def test_ctrl_c_leaves_a_run_that_goes_on_with_the_same_bits(
    loss: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", "text.txt", *SMALL, "--loss", loss, "--batch-size", "100", "--epochs", "50", "--quiet"]
    assert train(*options, "--out", "whole") == 0
    interrupt_a_training("word2vec", *options)
    assert train("--resume", "part") == 0
    for name in ("model.safetensors", "vectors.txt"):
        assert Path("part", name).read_bytes() == Path("whole", name).read_bytes(), name
    assert without_seconds(Path("part/history.csv")) == without_seconds(Path("whole/history.csv"))
    assert {path.name for path in Path("part").iterdir()} == files_of(loss)
    capsys.readouterr()
    assert "part is finished" in error_of(capsys, train("--resume", "part"))
    assert "--resume goes on with the options" in error_of(capsys, train("--resume", "part", "--lr", "3"))


def test_mistakes_leave_no_run_folder(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("empty.txt").write_text("")
    Path("latin.txt").write_bytes(b"caf\xe9\n")
    Path("short.txt").write_text("word\n")
    for arguments, message in (
        (["--data", "nothing.txt"], "nothing.txt does not exist"),
        (["--data", "empty.txt"], "empty.txt is empty"),
        (["--data", "latin.txt"], "latin.txt, line 1: no UTF-8"),
        (
            ["--data", "short.txt", "--min-count", "1"],
            "short.txt has 1 ids, expected at least two words side by side in one sentence",
        ),
        (["--data", "text.txt", "--min-count", "9999"], "no word occurs 9999 times"),
        ([], "text8 is not there. text8, the first 100 million letters"),
    ):
        assert message in error_of(capsys, train(*arguments))
    Path("word_eval/wordsim353.tsv").unlink()
    assert "wordsim353.tsv does not exist" in error_of(capsys, train("--data", "text.txt", "--eval"))
    assert not Path("runs").exists()
    assert train("--data", "text.txt", *SMALL, "--quiet") == 0  # not there and not asked for
    assert "wordsim353" not in capsys.readouterr().out
    for wrong in (["--window", "0"], ["--loss", "hs"], ["--subsample", "-1"], ["--lr", "0"]):
        with pytest.raises(SystemExit):
            train(*wrong)
        assert wrong[0] in capsys.readouterr().err


def test_every_word_has_a_name_or_none_has() -> None:
    model = Word2Vec(5, 3, loss="nce", num_sampled=2, seed=0)
    with pytest.raises(ValueError, match=r"vocabulary has 4 names, expected 5 \(vocab_size = 5\)"):
        model.vocabulary = list("abcd")
    model.vocabulary = list("abcde")
    assert model.words.vocabulary == list("abcde")
