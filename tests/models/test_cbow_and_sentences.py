"""Word2Vec as gensim's users know it: continuous bags of words, and sentences from whatever can be read again."""

from __future__ import annotations

import signal
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import ops, optim
from fastlstm.callbacks import BackupAndRestore, LambdaCallback
from fastlstm.contract import BackendNotAvailable, FloatArray
from fastlstm.layers import EmbeddingBag
from fastlstm.layers.seeds import Seeds
from fastlstm.models import Word2Vec, skipgram_batches
from fastlstm.testing import check_gradient

V, E = 12, 5
LOSSES = ("nce", "negative_sampling", "sampled_softmax")
_RNG = np.random.default_rng(0)
# Words 0 to 5 stand near each other, and so do words 6 to 11.
TOPICS = [(6 * (k % 2) + _RNG.integers(0, 6, 20)).tolist() for k in range(120)]
TEXT = np.concatenate([[*sentence, -1] for sentence in TOPICS])
NAMES = [f"w{i}" for i in range(V)]
SENTENCES = [[NAMES[i] for i in sentence] for sentence in TOPICS]


def cbow(loss: str = "negative_sampling", **options: Any) -> Word2Vec:
    return Word2Vec(V, E, **{"loss": loss, "num_sampled": 4, "window": 3, "sg": 0, "seed": 1, **options})


def weights(model: Word2Vec) -> bytes:
    return b"".join(param.tobytes() for param in model.params)


# --------------------------------------------------------------------------------------------
# CBOW
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients(loss: str) -> None:
    """With neighbours that come twice, and a word that has none."""
    model = cbow(loss, dtype="float64", counts=np.arange(1, V + 1))
    xs, ts = np.array([[1, 2, 1, 3], [4, -1, -1, -1], [5, 4, -1, -1], [-1, -1, -1, -1]]), np.array([0, 2, 1, 3])
    rng = np.random.default_rng(2)
    start = {name.replace(".", "__"): rng.standard_normal(param.shape) for name, param in model.named_parameters()}

    def loss_of(**arrays: FloatArray) -> float:
        model.set_weights({name.replace("__", "."): array for name, array in arrays.items()}, "here")
        model._output.seeds = Seeds(np.random.default_rng(3))  # the same sample every time
        return model.forward(xs, ts)

    loss_of(**start)
    model.backward()
    grads = {name: grad.copy() for name, grad in zip(start, model.grads, strict=True)}
    rows = model.row_gradients()
    check_gradient(loss_of, start, grads)
    for grad, (indices, values) in zip(grads.values(), rows, strict=True):
        dense = np.zeros_like(grad)
        dense[indices] = values
        np.testing.assert_allclose(dense, grad, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("loss", "optimizer"), [*((loss, optim.SGD) for loss in LOSSES), (LOSSES[1], optim.Adam)])
def test_words_that_stand_near_each_other_become_alike(loss: str, optimizer: Any) -> None:
    model = cbow(loss)
    rate = 0.02 if optimizer is optim.Adam else 0.1 if loss == "negative_sampling" else 1.0
    history = model.fit(TEXT, epochs=15, batch_size=32, subsample=None, optimizer=optimizer(rate), verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    for word in range(V):
        likest = {int(name) for name, _ in model.most_similar(word, 5)}
        assert len(likest & set(range(6 * (word // 6), 6 * (word // 6) + 6))) >= 4
    p = model.predict([[0, 1, 2, -1], [7, 8, 9, 10]])
    assert p[0, :6].sum() > 0.7
    assert p[1, 6:].sum() > 0.7


def test_a_step_is_that_of_word2vec() -> None:
    """Of a batch of `fit`: what `ops.cbow_update` does with the words and neighbours of the text."""
    model, by_hand = cbow(), cbow()
    counts = np.bincount(TEXT[TEXT >= 0])
    state = model.rng.bit_generator.state
    model.fit(TEXT, epochs=1, batch_size=10_000, subsample=None, final_lr=0.0, optimizer=optim.SGD(0.05), verbose=0)
    by_hand.rng.bit_generator.state = state
    _, reach = by_hand.rng.integers(0, 2**64, 2, np.uint64).tolist()
    pairs, numbers = ops.skipgram_pairs(TEXT, 3, seed=reach), ops.skipgram_counts(TEXT, 3, seed=reach)
    assert len(pairs.centers) > 4 * len(TEXT) / 2
    ops.cbow_update(
        by_hand.vectors,
        by_hand.params[1],
        TEXT[numbers > 0],
        pairs.contexts,
        numbers[numbers > 0],
        ops.UnigramTable(counts),
        num_sampled=4,
        lr=0.05,
        seed=by_hand.seeds.draw(),
    )
    np.testing.assert_array_equal(model.vectors, by_hand.vectors)


def test_an_interrupted_training_goes_on_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skipgram_batches, "PIECE", 300)
    options: dict[str, Any] = {"epochs": 2, "batch_size": 64, "subsample": 0.05, "verbose": 0}
    whole, part, resumed = cbow(), cbow(), cbow()
    whole.fit(TEXT, **options)

    def press_ctrl_c(batch: int, logs: Any) -> None:
        if batch == 7:
            signal.raise_signal(signal.SIGINT)

    backup = BackupAndRestore(tmp_path / "checkpoint", delete_checkpoint=False)
    with pytest.raises(KeyboardInterrupt):
        part.fit(TEXT, callbacks=[backup, LambdaCallback(on_train_batch_end=press_ctrl_c)], **options)
    resumed.fit(TEXT, callbacks=[BackupAndRestore(tmp_path / "checkpoint")], **options)
    assert weights(resumed) == weights(whole) != weights(part)


def test_a_model_of_cbow_saves_and_loads(tmp_path: Path) -> None:
    model = cbow()
    model.save(tmp_path / "model")
    again = Word2Vec.load(tmp_path / "model")
    assert again.cbow
    assert weights(again) == weights(model)
    assert "sg" not in Word2Vec(V, E).options  # as in files from before


def test_the_mean_of_no_rows_is_zero() -> None:
    bag = EmbeddingBag(np.arange(6, dtype=np.float32).reshape(3, 2))
    means = bag.forward(np.array([[0, 2], [1, -1], [-1, -1]]))
    np.testing.assert_array_equal(means, [[2, 3], [2, 3], [0, 0]])
    bag.backward(np.ones((3, 2), np.float32))
    np.testing.assert_array_equal(bag.grads[0], [[0.5, 0.5], [1, 1], [0.5, 0.5]])


def test_what_cbow_cannot_do_is_said() -> None:
    with pytest.raises(BackendNotAvailable, match=r"CBOW \(sg=0\) runs on the host only"):
        cbow().to("cuda")
    with pytest.raises(ValueError, match="sg is 2, expected at most 1"):
        Word2Vec(V, E, sg=2)
    with pytest.raises(ValueError, match=r"xs has shape \(2,\), expected two axes, \(B, C\): the neighbours"):
        cbow().evaluate([1, 2], [1, 2])
    with pytest.raises(IndexError, match="xs holds -2, expected 0 to 11 .* or -1 behind the neighbours"):
        cbow().predict([[1, -2]])


@pytest.mark.parametrize("sg", [0, 1])
def test_evaluating_a_text_takes_it_piece_by_piece(sg: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the same number as all at once, in less memory."""
    text = np.random.default_rng(0).integers(0, V, 40_000)
    model = cbow(sg=sg)
    whole = model.evaluate(text, batch_size=700, seed=3)
    monkeypatch.setattr(skipgram_batches, "PIECE", 1000)
    tracemalloc.start()
    assert model.evaluate(text, batch_size=700, seed=3) == whole
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 * len(text)  # the pairs take 64 bytes a word
    if sg:
        pairs = ops.skipgram_pairs(text, 3, seed=3)
        assert model.evaluate(pairs.centers, pairs.contexts, batch_size=700, seed=3) == whole


# --------------------------------------------------------------------------------------------
# Sentences
# --------------------------------------------------------------------------------------------


class Corpus:
    """Sentences that begin anew whenever they are read, as gensim's users write it."""

    def __init__(self, sentences: Any = SENTENCES) -> None:
        self.sentences, self.times = sentences, 0

    def __iter__(self) -> Iterator[Any]:
        self.times += 1
        return iter(self.sentences)


def named(**options: Any) -> Word2Vec:
    model = Word2Vec(V, E, **{"loss": "negative_sampling", "num_sampled": 4, "seed": 1, **options})
    model.vocabulary = NAMES
    return model


@pytest.mark.parametrize("sg", [0, 1])
def test_sentences_are_read_once_an_epoch_and_learned_as_their_ids_are(sg: int) -> None:
    corpus = Corpus()
    of_ids, of_words, of_lists = named(sg=sg), named(sg=sg), named(sg=sg)
    wanted = of_ids.fit(TEXT, epochs=3, verbose=0).history
    assert of_words.fit(corpus, epochs=3, validation_data=SENTENCES[:9], verbose=0).history["loss"] == wanted["loss"]
    assert corpus.times == 3
    of_lists.fit(TOPICS, epochs=3, verbose=0)
    assert weights(of_words) == weights(of_lists) == weights(of_ids)
    assert of_words.evaluate(SENTENCES) == of_ids.evaluate(TEXT)


def test_a_model_is_made_from_sentences() -> None:
    corpus = Corpus([["the", "cat", "the"], ["a", "the", "cat"], [], ["dog"]])
    model = Word2Vec.from_sentences(corpus, 8, min_count=2, seed=0)
    assert (model.vocabulary, model.word_counts) == (["the", "cat"], [3, 2])
    assert (model.options["loss"], model.options["num_sampled"]) == ("negative_sampling", 5)
    model.fit(corpus, epochs=2, subsample=None, verbose=0)
    assert corpus.times == 3
    # Rare words are left out, as if they were not there: what is left stands side by side.
    ids = Word2Vec.from_sentences(corpus, 8, min_count=2, seed=0)
    ids.fit([0, 1, 0, -1, 0, 1], epochs=2, subsample=None, verbose=0)
    assert weights(ids) == weights(model)


def test_other_words_are_unknown_ones_where_there_is_a_word_for_them() -> None:
    for unknown in ("<unk>", "UNK"):
        of_words, of_ids = (Word2Vec(3, 4, loss="negative_sampling", seed=0) for _ in range(2))
        of_words.vocabulary = [unknown, "a", "b"]
        of_words.fit([["a", "x", "b"]], epochs=1, subsample=None, verbose=0)
        of_ids.fit([1, 0, 2], epochs=1, subsample=None, verbose=0)
        assert weights(of_words) == weights(of_ids)


def test_a_generator_is_good_for_one_epoch() -> None:
    def read() -> Iterator[list[str]]:
        yield from SENTENCES

    once, of_list = named(), named()
    once.fit(read(), epochs=1, verbose=0)
    of_list.fit(SENTENCES, epochs=1, verbose=0)
    assert weights(once) == weights(of_list)
    before = weights(once)
    generator = read()
    with pytest.raises(TypeError, match="corpus is generator.*, which can be read once, but is read 2 times"):
        once.fit(generator, epochs=2, verbose=0)
    assert len(list(generator)) == len(SENTENCES)  # nothing was read
    with pytest.raises(
        ValueError, match="corpus gave no sentences. What was read before to its end, such as a generator"
    ):
        once.fit(generator, epochs=1, verbose=0)
    assert weights(once) == before

    class Worn(Corpus):
        def __iter__(self) -> Iterator[Any]:
            return super().__iter__() if not self.times else iter(())

    with pytest.raises(ValueError, match="corpus gave no sentences"):
        once.fit(Worn(), epochs=2, verbose=0)


@pytest.mark.parametrize(
    ("corpus", "error", "message"),
    [
        (["the cat", "a dog"], TypeError, r"sentence 0 is the string 'the cat', .*: 'the cat'\.split\(\)"),
        ("the cat", TypeError, "corpus is the string 'the cat', expected ids or a list of sentences"),
        ([["w1", "w2"], 3], TypeError, "corpus, sentence 1 is int 3, expected a list of words or of ids"),
        ([[1, 2], [3, 12]], IndexError, "corpus, sentence 1 holds 12, expected 0 to 11"),
        ([[1, 2], [0.5]], TypeError, "corpus, sentence 1 has dtype float64, expected integer ids"),
        ([["x", "y"]], ValueError, "corpus has 1 ids, expected at least two words side by side"),
        ([[], []], ValueError, "expected at least two words side by side"),
    ],
)
def test_what_is_no_sentence(corpus: Any, error: type[Exception], message: str) -> None:
    model = named()
    before = weights(model)
    with pytest.raises(error, match=message):
        model.fit(corpus, epochs=2, verbose=0)
    assert weights(model) == before


def test_words_need_a_vocabulary() -> None:
    with pytest.raises(ValueError, match=r"corpus, sentence 0 holds words, but the model has no vocabulary"):
        Word2Vec(V, E).fit(SENTENCES, epochs=1, verbose=0)
    for sentences, message in (([["a"]], "hold no word 5 times; a smaller min_count helps"), ([[]], "give no words")):
        with pytest.raises(ValueError, match=message):
            Word2Vec.from_sentences(sentences)
    with pytest.raises(TypeError, match="the sentences hold int 3, expected words"):
        Word2Vec.from_sentences([["a", 3]])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="sentence 0 is the string 'the cat'"):
        Word2Vec.from_sentences(["the cat"])
