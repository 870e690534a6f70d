"""RNNLM: gradients, the carried state, perplexity, generating, files; texts as ids; the command line."""

from __future__ import annotations

import copy
import json
import lzma
import math
import os
import pickle
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import error_of, interrupt_a_training, without_seconds

import fastlstm
from fastlstm import callbacks, datasets, optim
from fastlstm.cli import main
from fastlstm.contract import FloatArray, IntArray
from fastlstm.datasets.tokenizers import join_symbols, split_symbols
from fastlstm.models import RNNLM, Seq2seq
from fastlstm.models.text_streams import Streams
from fastlstm.testing import check_gradient
from fastlstm.training import History

V, D, H, N, T = 9, 3, 4, 5, 6
RNG = np.random.default_rng(0)
XS, TS = RNG.integers(0, V, (N, T)), RNG.integers(0, V, (N, T))
TS_WITH_GAPS = np.where(RNG.random((N, T)) < 0.3, -1, TS)
CORPUS = RNG.integers(0, V, 61)
# Each id follows from the one before, except that 0 is followed by 1 and 2 by turns: that takes a memory.
LEARNABLE = np.tile([0, 1, 3, 4, 0, 2, 3, 4, 5], 40)

KINDS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "rnn": {"cell": "rnn"},
    "gru": {"cell": "gru"},
    "two layers": {"num_layers": 2},
    "tied": {"wordvec_size": H, "tie_weights": True},
    "tied rnn, two layers": {"wordvec_size": H, "tie_weights": True, "cell": "rnn", "num_layers": 2},
}


def make(kind: str = "lstm", **options: Any) -> RNNLM:
    """A model whose weights are large enough for every gradient to count."""
    sizes = {"vocab_size": V, "wordvec_size": D, "hidden_size": H, "seed": 1, "dtype": "float64"}
    model = RNNLM(**{**sizes, **KINDS[kind], **options})
    rng = np.random.default_rng(2)
    for param in model.params:
        param += 0.5 * rng.standard_normal(param.shape)
    return model


def fit(model: RNNLM, corpus: IntArray = CORPUS, **options: Any) -> History:
    return model.fit(corpus, **{"epochs": 3, "time_size": 4, "batch_size": 3, "verbose": 0, **options})


def weights(model: RNNLM) -> bytes:
    return b"".join(param.tobytes() for param in model.params)


# --------------------------------------------------------------------------------------------
# Gradients
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str, dropout: float) -> None:
    model = make(kind, dropout=dropout)
    model.forward(XS, TS)  # so that the state is not zero
    state, random = model.state(), model.rng.bit_generator.state

    def loss(**params: FloatArray) -> float:
        model.set_state(state)
        model.rng.bit_generator.state = random
        for name, param in model.named_parameters():
            param[...] = params[name]
        return model.forward(XS, TS_WITH_GAPS)

    at = {name: param.copy() for name, param in model.named_parameters()}
    loss(**at)
    model.backward()
    check_gradient(loss, at, dict(zip(at, [grad.copy() for grad in model.grads], strict=True)))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_with_tied_weights_learns_the_same(copied: Any) -> None:
    model = make("tied", dropout=0.2)
    other = copied(model)
    for one in (model, other):
        fit(one)
    assert weights(model) == weights(other)


def test_tied_weights_are_one_array() -> None:
    apart, tied = make("lstm", wordvec_size=H), make("tied")
    assert tied.num_parameters == apart.num_parameters - H * V
    assert len(tied.params) == len({id(param) for param in tied.params}) == len(apart.params) - 1
    assert "output.W" not in dict(tied.named_parameters())
    tied.forward(XS, TS)
    tied.backward()
    assert all(
        grad.flags.c_contiguous and grad.shape == p.shape for grad, p in zip(tied.grads, tied.params, strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_backends_agree(kind: str, compiled_backend: str) -> None:
    losses, grads = {}, {}
    for backend in ("numpy", compiled_backend):
        with fastlstm.use_backend(backend):
            model = make(kind)
            losses[backend] = model.forward(XS, TS)
            model.backward()
            grads[backend] = [grad.copy() for grad in model.grads]
    assert losses[compiled_backend] == pytest.approx(losses["numpy"], rel=1e-11)
    for a, b in zip(grads[compiled_backend], grads["numpy"], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-11)


def test_initial_weights_are_those_of_the_book() -> None:
    for cell in ("lstm", "gru", "rnn"):
        params = dict(RNNLM(200, 100, 150, cell=cell, seed=0).named_parameters())
        for name, spread in {
            "embedding.W": 0.01,
            f"{cell}1.Wx": 1 / np.sqrt(100),
            f"{cell}1.Wh": 1 / np.sqrt(150),
            "output.W": 1 / np.sqrt(150),
        }.items():
            assert params[name].std() == pytest.approx(spread, rel=0.03), name
        assert not params[f"{cell}1.b"].any()
        assert {param.dtype for param in params.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("tie_weights", [False, True])
def test_init_scale_draws_everything_uniformly(tie_weights: bool) -> None:
    for cell in ("lstm", "gru", "rnn"):
        model = RNNLM(300, 60, 60, cell=cell, num_layers=2, tie_weights=tie_weights, init_scale=0.1, seed=0)
        for name, param in model.named_parameters():
            assert 0.09 < np.abs(param).max() < 0.1, name
            # A uniform distribution's, not that of a normal one cut off.
            assert param.std() == pytest.approx(0.1 / np.sqrt(3), rel=0.2 if param.ndim == 1 else 0.02), name


# --------------------------------------------------------------------------------------------
# The carried state
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_with_carried_state_equal_one_long_sequence(kind: str) -> None:
    model = make(kind)
    whole = model.forward(XS, TS)
    model.reset_state()
    parts = [model.forward(XS[:, start : start + 2].copy(), TS[:, start : start + 2].copy()) for start in (0, 2, 4)]
    assert np.mean(parts) == pytest.approx(whole, rel=1e-12)
    again = model.forward(XS, TS)
    assert again != pytest.approx(whole, rel=1e-4)
    model.reset_state()
    assert model.forward(XS, TS) == whole
    assert model.forward(XS, TS) == pytest.approx(again, rel=1e-12)


def test_training_carries_the_state_and_starts_every_epoch_from_zero() -> None:
    by_hand, model = make(), make()
    xs, ts = Streams(CORPUS, 3).piece(0, 20)
    assert xs.shape == (3, 20)
    optimizer = optim.SGD(0.5)
    losses = []
    for _ in range(2):
        by_hand.reset_state()
        total = 0.0
        for start in range(0, 20, 4):
            piece = slice(start, start + 4)
            total += by_hand.forward(xs[:, piece].copy(), ts[:, piece].copy())
            by_hand.backward()
            optimizer.update(by_hand.params, by_hand.grads, max_norm=0.25)
        losses.append(total / 5)
    history = fit(model, epochs=2, optimizer=optim.SGD(0.5), max_grad=0.25).history
    assert weights(model) == weights(by_hand)
    assert history["loss"] == pytest.approx(losses)


@pytest.mark.parametrize(("length", "streams"), [(61, 3), (62, 3), (60, 7), (2, 1), (4, 8)])
def test_every_id_but_the_first_is_said_once(length: int, streams: int) -> None:
    corpus = np.arange(length)
    xs, ts = Streams(corpus, streams).piece(0, length)
    assert xs.shape == ts.shape == (streams, -(-(length - 1) // streams))
    np.testing.assert_array_equal(ts[ts != -1], corpus[1:])
    np.testing.assert_array_equal(xs[ts != -1], corpus[:-1])
    pieces = Streams(corpus, streams).pieces(0, -(-ts.shape[1] // 4), 4)[1]
    np.testing.assert_array_equal(np.concatenate(list(pieces), axis=1)[:, : ts.shape[1]], ts)
    assert (pieces != -1).sum() == length - 1


def test_another_number_of_streams_needs_a_reset() -> None:
    model = make()
    model.forward(XS, TS)
    with pytest.raises(ValueError, match="xs has 2 streams, but the state carried over has 5; reset_state"):
        model.forward(XS[:2], TS[:2])
    model.reset_state()
    model.forward(XS[:2], TS[:2])


def test_a_call_that_fails_leaves_the_state_alone() -> None:
    model = RNNLM(11, 6, 6, num_layers=2, seed=0)
    xs = np.arange(6).reshape(2, 3)
    model.forward(xs, xs)
    before = [array.copy() for array in model.state()]
    for wrong in (xs + 9, xs[:, :2], xs.astype(float)):
        with pytest.raises((IndexError, TypeError, ValueError), match="targets"):
            model.forward(xs, wrong)
        for array, right in zip(model.state(), before, strict=True):
            np.testing.assert_array_equal(array, right)


def test_what_is_asked_of_a_model_leaves_its_state_alone() -> None:
    model = make()
    model.forward(XS, TS)
    before = [array.copy() for array in model.state()]
    model.evaluate(CORPUS)
    model.generate(3, 4)
    model.predict(XS[:1])
    assert len(before) == 2
    for now, then in zip(model.state(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    with pytest.raises(ValueError, match="state has 1 arrays, expected 2 or none"):
        model.set_state(before[:1])


# --------------------------------------------------------------------------------------------
# Training and evaluating
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"cell": "rnn"}, {"cell": "gru", "init_scale": 0.3}, {"tie_weights": True, "num_layers": 2}]
)
def test_a_model_learns_what_takes_a_memory(options: dict[str, Any]) -> None:
    model = RNNLM(6, 16, 16, seed=0, **options)
    history = fit(model, LEARNABLE, epochs=60, time_size=9, batch_size=4, optimizer=optim.Adam(0.01), max_grad=5.0)
    assert history.history["perplexity"][0] > 3
    # Without a memory, 1 and 2 after 0 cost log 2 twice in nine steps: a perplexity of 1.17.
    scores = model.evaluate(LEARNABLE, batch_size=1)
    assert scores["perplexity"] < 1.05
    assert scores["accuracy"] > 0.99
    np.testing.assert_array_equal(model.generate(LEARNABLE[:9], 18, temperature=0), LEARNABLE[9:27])


def test_training_in_bf16_learns_as_in_float32(compiled_backend: str) -> None:
    def trained(precision: Any) -> Any:
        model = RNNLM(6, 24, 48, num_layers=2, seed=1, dtype="float32").to("cpu", precision=precision)
        history = model.fit(LEARNABLE, epochs=6, time_size=9, batch_size=4, optimizer="adam", verbose=0)
        rounded = model.evaluate(LEARNABLE)["perplexity"]
        return history.history["loss"], rounded, model.to("cpu").evaluate(LEARNABLE)["perplexity"]

    with fastlstm.use_backend(compiled_backend):
        exact, perplexity, same = trained(None)
        losses, rounded, unrounded = trained("bf16")
    assert perplexity == same
    assert rounded != unrounded, "once it is moved without a precision, products are exact again"
    np.testing.assert_allclose(losses, exact, rtol=0.02)
    np.testing.assert_allclose([rounded, unrounded], perplexity, rtol=0.02)


def test_perplexity_is_the_exponential_of_the_mean_loss() -> None:
    model = make()
    metrics = ("perplexity", "accuracy")
    history = fit(model, validation_data=CORPUS[:30], metrics=metrics).history
    assert set(history) == {f"{part}{name}" for part in ("", "val_") for name in ("loss", *metrics)}
    for part in ("", "val_"):
        np.testing.assert_allclose(history[f"{part}perplexity"], np.exp(history[f"{part}loss"]), rtol=1e-12)
    assert model.evaluate(CORPUS[:30], batch_size=3)["perplexity"] == history["val_perplexity"][-1]


def test_evaluation_is_the_mean_over_the_whole_text() -> None:
    model = make()
    p = model.predict(CORPUS[None, :-1])[0]
    np.testing.assert_allclose(p.sum(axis=1), 1)
    log_p = np.log(p[np.arange(60), CORPUS[1:]])
    for time_size in (1, 7, 100):
        scores = model.evaluate(CORPUS, batch_size=1, time_size=time_size)
        assert scores["loss"] == pytest.approx(-log_p.mean())
        assert scores["perplexity"] == pytest.approx(math.exp(-log_p.mean()))
        assert scores["accuracy"] == pytest.approx((p.argmax(axis=1) == CORPUS[1:]).mean())
    streams = Streams(CORPUS, 7).piece(0, 60)
    assert model.evaluate(*streams) == model.evaluate(CORPUS, batch_size=7)
    assert set(model.evaluate(CORPUS, metrics=("perplexity",))) == {"loss", "perplexity"}


def test_a_loss_beyond_all_numbers_is_an_infinite_perplexity() -> None:
    model = make()
    model.params[-1][0] = 1e4
    assert model.evaluate(np.full(9, 1))["perplexity"] == math.inf


def test_validation_split_takes_the_end_of_the_text() -> None:
    history = fit(make(), validation_split=0.4).history
    assert history == fit(make(), CORPUS[:37], validation_data=CORPUS[37:]).history
    assert "val_perplexity" in history


def test_dropout_masks_are_reproducible_and_off_while_evaluating() -> None:
    a, b, c = (RNNLM(V, D, H, dropout=0.5, seed=seed) for seed in (3, 3, 4))
    for model in (a, b, c):
        fit(model)
    assert weights(a) == weights(b) != weights(c)
    assert a.evaluate(CORPUS) == a.evaluate(CORPUS)
    without = RNNLM(V, D, H, seed=3)
    fit(without)
    assert weights(without) != weights(a)


@pytest.mark.parametrize("kind", ["lstm", "tied rnn, two layers"])
def test_any_number_of_threads_gives_the_same_bits(kind: str) -> None:
    made = []
    for threads in (1, 2):
        fastlstm.set_num_threads(threads)
        sizes = {"vocab_size": 300, "wordvec_size": 64, "hidden_size": 64, "dtype": "float32"}
        model = make(kind, **sizes, dropout=0.2)
        fit(model, np.random.default_rng(0).integers(0, 300, 2000), epochs=1, time_size=20, batch_size=16)
        made.append(weights(model))
    assert made[0] == made[1]


class CtrlC(callbacks.Callback):
    """Presses Ctrl-C after a batch."""

    def __init__(self, epoch: int, batch: int) -> None:
        super().__init__()
        self.at = (epoch, batch)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float]) -> None:
        if (self.trainer.epoch, batch) == self.at:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("at", [(0, 0), (1, 2), (2, 3)])
def test_an_interrupted_training_goes_on_with_the_same_bits(at: tuple[int, int], tmp_path: Path) -> None:
    options: dict[str, Any] = {"validation_split": 0.3, "optimizer": "momentum", "metrics": ("perplexity", "accuracy")}
    whole, part, resumed = (make("two layers", dropout=0.3) for _ in range(3))
    wanted = fit(whole, **options).history
    backup = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fit(part, callbacks=[callbacks.BackupAndRestore(backup), CtrlC(*at)], **options)
    assert fit(resumed, callbacks=[callbacks.BackupAndRestore(backup)], **options).history == wanted
    assert weights(resumed) == weights(whole)
    with pytest.raises(KeyboardInterrupt):
        fit(part, callbacks=[callbacks.BackupAndRestore(backup), CtrlC(*at)], **options)
    with pytest.raises(ValueError, match="belongs to another training: "):
        fit(make("two layers", dropout=0.3), time_size=5, callbacks=[callbacks.BackupAndRestore(backup)], **options)


@pytest.mark.skipif("FASTLSTM_DATA_DIR" not in os.environ, reason="FASTLSTM_DATA_DIR is not set")
def test_perplexity_falls_on_a_part_of_the_penn_treebank() -> None:
    text = datasets.ptb(limit=5000)
    model = RNNLM(len(text.vocabulary), 32, 32, seed=0)
    history = fit(model, text.ids, epochs=6, time_size=20, batch_size=20, optimizer=optim.Adam(0.01), max_grad=5.0)
    perplexity = history.history["perplexity"]
    assert len(text.vocabulary) > 1000
    assert perplexity[0] > 400
    # A model of how often each word occurs, without any context.
    p = np.bincount(text.ids) / len(text.ids)
    assert perplexity[-1] < 0.8 * math.exp(-(p * np.log(p)).sum())


# --------------------------------------------------------------------------------------------
# Generating
# --------------------------------------------------------------------------------------------


def test_generate_takes_the_likeliest_at_temperature_zero() -> None:
    model = make()
    written = model.generate([3, 1], 6, temperature=0)
    assert written.shape == (6,)
    assert written.dtype == np.int64
    read = np.concatenate(([3, 1], written[:-1]))
    np.testing.assert_array_equal(model.predict(read[None])[0, 1:].argmax(axis=-1), written)
    np.testing.assert_array_equal(model.generate([3, 1], 6, top_k=1, seed=5), written)
    np.testing.assert_array_equal(model.generate([3, 1], 6, temperature=1e-300, seed=5), written)


def test_generate_draws_by_probability() -> None:
    model = make()
    p = model.predict(np.array([[3]]))[0, 0]
    drawn = np.array([model.generate(3, 1, seed=seed)[0] for seed in range(2000)])
    np.testing.assert_allclose(np.bincount(drawn, minlength=V) / 2000, p, atol=0.04)
    hot = np.array([model.generate(3, 1, temperature=3, seed=seed)[0] for seed in range(2000)])
    wanted = p ** (1 / 3) / (p ** (1 / 3)).sum()
    np.testing.assert_allclose(np.bincount(hot, minlength=V) / 2000, wanted, atol=0.04)


def test_generate_writes_only_what_may_be_written() -> None:
    model = make()
    skip = [0, 2, 4, 6]
    assert set(model.generate(3, 300, skip_ids=skip, seed=0)) == {1, 3, 5, 7, 8}
    assert set(model.generate(3, 50, skip_ids=np.array(skip), temperature=0)) <= {1, 3, 5, 7, 8}
    likeliest = set(np.argsort(model.predict(np.array([[3]]))[0, 0])[-2:])
    assert {int(model.generate(3, 1, top_k=2, seed=seed)[0]) for seed in range(60)} == likeliest
    # Among what may be written there are two left, although three are asked for.
    assert set(model.generate(3, 60, skip_ids=range(2, V), top_k=3, seed=0)) == {0, 1}


def test_generate_is_reproducible_and_does_not_disturb_training() -> None:
    model = make(dropout=0.5)
    random = model.rng.bit_generator.state
    np.testing.assert_array_equal(model.generate(3, 20, seed=7), model.generate(3, 20, seed=7))
    assert not np.array_equal(model.generate(3, 20, seed=7), model.generate(3, 20, seed=8))
    assert model.rng.bit_generator.state == random
    assert model.generate(3, 0).shape == (0,)


# --------------------------------------------------------------------------------------------
# Bad input
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 0}, "vocab_size is 0, expected at least 1"),
        ({"num_layers": 0}, "num_layers is 0, expected at least 1"),
        ({"hidden_size": 2.5}, "hidden_size is .*2.5.*, expected a whole number"),
        ({"cell": "tree"}, "cell is 'tree', expected 'lstm', 'gru' or 'rnn'"),
        ({"init_scale": 0.0}, "init_scale is 0.0, expected"),
        ({"dropout": 1.0}, "expected at least 0 and below 1"),
        ({"dtype": "float16"}, "dtype is float16, expected float32 or float64"),
        ({"tie_weights": True}, "tie_weights needs equal widths, but wordvec_size is 3 and hidden_size 4"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make(**options)


@pytest.mark.parametrize(
    ("corpus", "options", "message"),
    [
        (CORPUS[:1], {}, "corpus has 1 ids, expected at least 2"),
        (CORPUS[None], {}, r"corpus has shape \(1, 61\), expected one axis"),
        (CORPUS.astype(float), {}, "corpus has dtype float64, expected integer ids"),
        (CORPUS + 1, {}, r"corpus holds 9, expected 0 to 8 \(vocab_size = 9\)"),
        (CORPUS - 1, {}, "corpus holds -1, expected 0 to 8"),
        (CORPUS, {"time_size": 0}, "time_size is 0, expected at least 1"),
        (CORPUS, {"batch_size": 0}, "batch_size is 0, expected at least 1"),
        (CORPUS, {"validation_split": 1.0}, "validation_split is 1.0, expected at least 0 and below 1"),
        (CORPUS, {"validation_split": 0.02}, "the held-out end of corpus has 1 ids"),
        (CORPUS, {"validation_data": [1]}, "validation_data has 1 ids"),
        (CORPUS, {"metrics": ("speed",)}, "unknown metric 'speed'; RNNLM has loss, perplexity, accuracy"),
    ],
)
def test_bad_texts_and_arguments_of_fit(corpus: IntArray, options: dict[str, Any], message: str) -> None:
    model = make()
    before = weights(model)
    with pytest.raises((TypeError, ValueError, IndexError), match=message):
        fit(model, corpus, **options)
    assert weights(model) == before


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((V, 3), {}, "start_ids holds 9, expected 0 to 8"),
        (([], 3), {}, "start_ids is empty"),
        ((1.5, 3), {}, "start_ids has dtype float64, expected integer ids"),
        ((1, -1), {}, "length is -1, expected at least 0"),
        ((1, 3), {"temperature": -1}, "temperature is -1"),
        ((1, 3), {"top_k": 0}, "top_k is 0, expected at least 1"),
        ((1, 3), {"skip_ids": [V]}, "skip_ids holds 9"),
        ((1, 3), {"skip_ids": range(V)}, "skip_ids holds all 9 ids"),
    ],
)
def test_bad_arguments_of_generate(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError, IndexError), match=message):
        make().generate(*arguments, **options)


def test_streams_and_what_follows_them_have_one_shape() -> None:
    with pytest.raises(ValueError, match=r"ts has shape \(5, 5\), expected \(5, 6\)"):
        make().evaluate(XS, TS[:, 1:])
    assert make().evaluate(XS, np.eye(V)[TS]) == make().evaluate(XS, TS)
    assert make().evaluate(XS, TS[..., None]) == make().evaluate(XS, TS)
    assert make().forward(XS, TS[..., None]) == make().forward(XS, TS)
    with pytest.raises(ValueError, match=r"ts has shape \(5, 6, 10\), expected one-hot rows of V = 9"):
        make().evaluate(XS, np.eye(V + 1)[TS])


# --------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_comes_back(kind: str, tmp_path: Path) -> None:
    model = make(kind)
    model.vocabulary = [*"abcdefgh", "日本"]
    path = tmp_path / "model.safetensors"
    model.save(path)
    loaded = RNNLM.load(path)
    assert (loaded.options, loaded.vocabulary) == (model.options, model.vocabulary)
    assert loaded.evaluate(CORPUS) == model.evaluate(CORPUS)
    np.testing.assert_array_equal(loaded.generate(1, 20, seed=0), model.generate(1, 20, seed=0))


def test_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    Seq2seq(V, D, H).save(path)
    with pytest.raises(ValueError, match="holds a Seq2seq, expected a RNNLM"):
        RNNLM.load(path)


def test_plain_text_by_characters_and_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text.txt"
    path.write_text("吾輩は  猫は\n猫 である\n", encoding="utf-8")
    ids, vocabulary = datasets.plain_text(path)
    assert "".join(vocabulary[i] for i in ids) == "吾輩は  猫は\n猫 である"
    assert vocabulary[:3] == ["吾", "輩", "は"]
    assert ids.dtype == np.int64
    ids, vocabulary = datasets.plain_text(path, "word")
    assert vocabulary == ["吾輩は", "猫は", "<eos>", "猫", "である"]
    np.testing.assert_array_equal(ids, [0, 1, 2, 3, 4, 2])
    assert datasets.plain_text(path, "word", limit=2).vocabulary == ["吾輩は", "猫は"]
    np.testing.assert_array_equal(
        datasets.plain_text(path, "word", vocabulary=vocabulary[::-1]).ids, [4, 3, 2, 1, 0, 2]
    )
    monkeypatch.setenv("FASTLSTM_DATA_DIR", str(tmp_path))
    monkeypatch.chdir("/")
    assert len(datasets.plain_text("text.txt").ids) == 13


def test_a_word_that_is_written_like_a_line_s_end_is_a_word(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("a <eos> b\n\\<eos> <eos>\n")
    ids, vocabulary = datasets.plain_text(path, "word")
    assert vocabulary == ["a", r"\<eos>", "b", "<eos>", r"\\<eos>"]
    assert ids.tolist() == [0, 1, 2, 3, 4, 1, 3]
    assert join_symbols([vocabulary[i] for i in ids], "blanks") == path.read_text()
    assert split_symbols(path.read_text(), "blanks")[:-1] == [vocabulary[i] for i in ids[:-1]]


def test_texts_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    for content, message in {b"": "is empty", b" \n\n": "is empty", b"a\n\xff\n": "line 2: no UTF-8"}.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            datasets.plain_text(path)
    path.write_text("a b\n")
    with pytest.raises(ValueError, match="text.txt: 'b' is not in the vocabulary of 2 symbols"):
        datasets.plain_text(path, "word", vocabulary=["a", "<eos>"])
    with pytest.raises(ValueError, match="unit is 'line', expected 'char' or 'word'"):
        datasets.plain_text(path, "line")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limit is 0, expected at least 1"):
        datasets.plain_text(path, limit=0)
    with pytest.raises(FileNotFoundError, match="nothing.txt does not exist"):
        datasets.plain_text(tmp_path / "nothing.txt")


def test_the_parts_of_ptb_share_the_vocabulary_of_the_training_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ptb"
    folder.mkdir()
    monkeypatch.setenv("FASTLSTM_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"ptb\.train\.txt does not exist.*tomsercu/lstm"):
        datasets.ptb()
    (folder / "ptb.train.txt.xz").write_bytes(lzma.compress(b" the <unk> fell \n the N rose \n"))
    (folder / "ptb.valid.txt").write_text(" N fell \n")
    assert datasets.ptb().vocabulary == ["the", "<unk>", "fell", "<eos>", "N", "rose"]
    np.testing.assert_array_equal(datasets.ptb("train").ids, [0, 1, 2, 3, 0, 4, 5, 3])
    np.testing.assert_array_equal(datasets.ptb("valid").ids, [4, 2, 3])
    assert datasets.ptb("valid").vocabulary == datasets.ptb().vocabulary
    assert datasets.ptb(limit=3).vocabulary == ["the", "<unk>", "fell"]
    with pytest.raises(ValueError, match="split is 'dev', expected 'train', 'valid' or 'test'"):
        datasets.ptb("dev")
    with pytest.raises(ValueError, match="limit is for the training part, split is 'valid'"):
        datasets.ptb("valid", limit=3)
    (folder / "ptb.valid.txt").write_text(" bonds fell \n")
    with pytest.raises(ValueError, match="'bonds' is not in the vocabulary of 6 symbols"):
        datasets.ptb("valid")


@pytest.mark.skipif("FASTLSTM_DATA_DIR" not in os.environ, reason="FASTLSTM_DATA_DIR is not set")
def test_the_penn_treebank_has_the_size_that_everybody_reports() -> None:
    train = datasets.ptb()
    assert (len(train.ids), len(train.vocabulary)) == (929_589, 10_000)
    assert train.vocabulary[:2] == ["aer", "banknote"]


# --------------------------------------------------------------------------------------------
# fastlstm train rnnlm
# --------------------------------------------------------------------------------------------

SMALL = ["--hidden-size", "8", "--epochs", "3", "--time-size", "5", "--batch-size", "4", "--optimizer", "adam"]
RUN_FILES = {"model.safetensors", "checkpoint.safetensors", "history.csv", "config.json", "perplexity.png"}
TEXT = "the cat saw the dog .\nthe dog saw the cat .\n" * 12


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small text, and a Penn Treebank made of it, in an otherwise empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTLSTM_DATA_DIR", str(tmp_path))
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    (tmp_path / "ptb").mkdir()
    for split in ("train", "valid", "test"):
        (tmp_path / "ptb" / f"ptb.{split}.txt").write_text(TEXT)
    return path


def train(*arguments: str | Path) -> int:
    return main(["train", "rnnlm", *map(str, arguments)])


def test_training_on_a_file_leaves_a_run_folder(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--data", "text.txt", *SMALL, "--layers", "2", "--tie-weights", "--dropout", "0.1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("epoch 3/3") and "val_perplexity" in line for line in lines)
    assert lines[-1] == "run folder: runs/rnnlm-1"
    run = Path("runs/rnnlm-1")
    assert {path.name for path in run.iterdir()} == RUN_FILES
    assert (run / "perplexity.png").read_bytes().startswith(b"\x89PNG")
    header, *rows = (run / "history.csv").read_text().splitlines()
    assert header == "epoch,loss,perplexity,val_loss,val_perplexity,learning_rate,seconds"
    assert len(rows) == 3
    model = RNNLM.load(run / "model.safetensors")
    assert (model.options["num_layers"], model.options["tie_weights"], model.options["dropout"]) == (2, True, 0.1)
    config = json.loads((run / "config.json").read_text())
    assert (config["options"]["data"], config["options"]["hold_out"]) == (str(data), 0.1)
    # The result is that of the best epoch, and so is the model.
    best = min(float(row.split(",")[4]) for row in rows)
    assert config["result"]["val_perplexity"] == best
    text = datasets.plain_text(data, "word")
    assert model.vocabulary == text.vocabulary
    held_out = text.ids[len(text.ids) - len(text.ids) // 10 :]
    assert model.evaluate(held_out, batch_size=4)["perplexity"] == pytest.approx(best)


@pytest.mark.usefixtures("data")
def test_a_run_in_bf16_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    for name, precision in (("exact", []), ("rounded", ["--precision", "bf16"])):
        assert train("--data", "text.txt", *SMALL, "--quiet", *precision, "--out", name) == 0
    exact, rounded = (json.loads(Path(name, "config.json").read_text()) for name in ("exact", "rounded"))
    assert (exact["options"]["precision"], rounded["options"]["precision"]) == (None, "bf16")
    assert 0 < abs(rounded["result"]["val_perplexity"] - exact["result"]["val_perplexity"]) < 0.1
    error = error_of(capsys, train("--data", "text.txt", *SMALL, "--precision", "tf32", "--out", "none"))
    assert error == "fastlstm: --precision tf32 needs --device cuda: on the processor it is bf16, or exact without"
    assert not Path("none").exists()


def test_training_on_ptb_validates_and_tests(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(*SMALL, "--cell", "rnn", "--quiet", "--out", "r") == 0
    assert "validation" in capsys.readouterr().out
    config = json.loads(Path("r/config.json").read_text())
    assert set(config["result"]) == {"perplexity", "val_perplexity", "test_perplexity"}
    assert RNNLM.load("r/model.safetensors").options["cell"] == "rnn"
    # So does a part of it, on as much of the other parts.
    assert train(*SMALL, "--limit", "60", "--quiet", "--out", "s") == 0
    config = json.loads(Path("s/config.json").read_text())
    assert set(config["result"]) == {"perplexity", "val_perplexity", "test_perplexity"}
    assert config["rows"]["training"] == 60
    assert config["rows"]["validation"] <= 60


def test_the_learning_rate_is_quartered_when_validation_does_not_improve(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []

    class Watched(optim.SGD):
        def update(self, *arguments: Any, **options: Any) -> None:
            rates.append(self.lr)
            super().update(*arguments, **options)

    monkeypatch.setattr("fastlstm.cli.rnnlm.SGD", Watched)
    monkeypatch.setattr(RNNLM, "evaluate", lambda *_, **__: {"loss": 1.0, "perplexity": math.e})
    options = ["--hidden-size", "8", "--batch-size", "4", "--epochs", "4", "--lr", "1.6"]
    assert train("--data", "text.txt", *options, "--quiet", "--out", "r") == 0
    assert list(dict.fromkeys(rates)) == pytest.approx([1.6, 0.4, 0.1])
    assert rates.count(1.6) == len(rates) // 2  # the first epoch, and the second, which is no better


def test_the_learning_rate_decays_by_the_epoch(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a checkpoint between two epochs is gone on with; never by what validation says."""
    rates = []

    class Watched(optim.SGD):
        def update(self, *arguments: Any, **options: Any) -> None:
            rates.append(self.lr)
            super().update(*arguments, **options)

    monkeypatch.setattr("fastlstm.cli.rnnlm.SGD", Watched)
    monkeypatch.setattr(RNNLM, "evaluate", lambda *_, **__: {"loss": 1.0, "perplexity": math.e})
    options = ["--data", "text.txt", "--hidden-size", "8", "--batch-size", "4", "--lr", "1.6", "--quiet"]
    decay = ["--decay-after", "2", "--init-scale", "0.1"]
    assert train(*options, *decay, "--epochs", "4", "--out", "halved") == 0
    assert list(dict.fromkeys(rates)) == pytest.approx([1.6, 0.8, 0.4])
    assert rates.count(1.6) == len(rates) // 2
    saved = json.loads(Path("halved/config.json").read_text())["options"]
    assert (saved["decay_after"], saved["decay"], saved["init_scale"]) == (2, 0.5, 0.1)
    rates.clear()
    assert train(*options, "--decay-after", "1", "--decay", "0.1", "--epochs", "3", "--out", "tenth") == 0
    assert list(dict.fromkeys(rates)) == pytest.approx([1.6, 0.16, 0.016])

    rates.clear()
    begun: list[int] = []

    def interrupt(scheduler: callbacks.LearningRateScheduler, epoch: int) -> None:
        begin(scheduler, epoch)
        begun.append(epoch)
        if begun == [0, 1, 2]:  # the rate is set already, no batch is done
            signal.raise_signal(signal.SIGINT)

    begin = callbacks.LearningRateScheduler.on_epoch_begin
    monkeypatch.setattr(callbacks.LearningRateScheduler, "on_epoch_begin", interrupt)
    assert train(*options, *decay, "--epochs", "4", "--out", "part") == 130
    assert train("--resume", "part", "--quiet") == 0
    assert begun == [0, 1, 2, 2, 3]
    assert list(dict.fromkeys(rates)) == pytest.approx([1.6, 0.8, 0.4])
    assert Path("part/model.safetensors").read_bytes() == Path("halved/model.safetensors").read_bytes()


def test_default_options_are_those_of_the_book(data: Path) -> None:
    for name, given, wanted in (
        ("a", [], (20.0, 0.25)),
        ("b", ["--cell", "rnn"], (0.1, None)),
        ("e", ["--cell", "gru"], (20.0, 0.25)),
        ("c", ["--optimizer", "adam"], (0.001, None)),
        ("d", ["--lr", "3", "--max-grad", "2"], (3.0, 2.0)),
    ):
        assert train("--limit", "40", "--epochs", "1", "--hidden-size", "4", *given, "--quiet", "--out", name) == 0
        options = json.loads(Path(name, "config.json").read_text())["options"]
        assert (options["lr"], options["max_grad"]) == wanted
        assert (options["wordvec_size"], options["time_size"], options["batch_size"]) == (4, 35, 20)


def test_ctrl_c_leaves_a_run_that_goes_on_with_the_same_bits(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", "text.txt", "--unit", "char", *SMALL, "--epochs", "60", "--dropout", "0.2", "--quiet"]
    assert train(*options, "--out", "whole") == 0
    interrupt_a_training("rnnlm", *options)
    capsys.readouterr()
    assert main(["generate", "part", "the cat", "--length", "3"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("the cat")
    assert "part is not finished; this is its model " in err
    assert train("--resume", "part") == 0
    assert Path("part/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    assert without_seconds(Path("part/history.csv")) == without_seconds(Path("whole/history.csv"))
    assert {path.name for path in Path("part").iterdir()} == RUN_FILES
    capsys.readouterr()
    assert "part is finished" in error_of(capsys, train("--resume", "part"))
    assert "--resume goes on with the options" in error_of(capsys, train("--resume", "part", "--lr", "3"))


def test_a_loss_that_is_nan_ends_the_run(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(optimizer: optim.Adam, params: Any, grads: Any, max_norm: float | None = None) -> None:
        params[-1][...] = math.nan

    monkeypatch.setattr(optim.Adam, "update", broken)
    assert train("--data", data, *SMALL, "--quiet", "--out", "r") == 1
    assert "the loss became nan in epoch 1, batch 2" in capsys.readouterr().err
    assert not Path("r/model.safetensors").exists()


@pytest.mark.parametrize("unit", ["word", "char"])
def test_generate_goes_on_with_a_text(unit: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("--data", "text.txt", "--unit", unit, *SMALL, "--lr", "0.03", "--epochs", "30", "--quiet", "--out", "r")
    capsys.readouterr()
    assert ("accuracy" in json.loads(Path("r/config.json").read_text())["result"]) == (unit == "char")
    assert main(["generate", "r", "the cat", "saw", "--length", "8", "--temperature", "0"]) == 0
    out = capsys.readouterr().out
    model = RNNLM.load("r/model.safetensors")
    assert model.vocabulary is not None
    start = ["the", "cat", "saw"] if unit == "word" else list("the cat saw")
    ids = model.generate([model.vocabulary.index(symbol) for symbol in start], 8, temperature=0)
    written = [model.vocabulary[i] for i in ids]
    if unit == "word":  # eight words are more than a line
        assert out == "the cat saw the dog .\nthe dog saw the\n"
        assert written[3] == "<eos>"
    else:
        assert out == f"the cat saw{''.join(written)}\n"
    assert main(["generate", "r", "--length", "30", "--seed", "1", "--skip", "t" if unit == "char" else "the"]) == 0
    out = capsys.readouterr().out
    assert out
    assert ("t" if unit == "char" else "the") not in out
    assert main(["generate", "r", "--length", "30", "--seed", "1", "--top-k", "2"]) == 0
    assert "'bird' is not in the vocabulary" in error_of(capsys, main(["generate", "r", "--skip", "bird"]))
    unknown = "'Z' is not in the vocabulary"
    assert unknown in error_of(capsys, main(["generate", "r", "Z"]))


def test_mistakes_leave_no_run_folder(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("empty.txt").write_text("")
    Path("latin.txt").write_bytes(b"caf\xe9\n")
    Path("short.txt").write_text("a")
    for arguments, message in (
        (["--data", "nothing.txt"], "nothing.txt does not exist"),
        (["--data", "empty.txt"], "empty.txt is empty"),
        (["--data", "latin.txt"], "latin.txt, line 1: no UTF-8"),
        (["--data", "short.txt", "--unit", "char"], "1 ids to learn from and 0 to validate on"),
        (["--unit", "char"], "ptb is read in words"),
        (["--hold-out", "0.1"], "ptb has a part of its own to validate on"),
        (["--tie-weights", "--wordvec-size", "5"], "tie_weights needs equal widths"),
        (["--decay", "0.5"], "--decay needs --decay-after"),
    ):
        assert message in error_of(capsys, train(*arguments))
    monkeypatch.delenv("FASTLSTM_DATA_DIR")
    monkeypatch.chdir("ptb")
    assert "tomsercu/lstm" in error_of(capsys, train())
    monkeypatch.chdir(data.parent)
    assert not Path("runs").exists()
    for wrong in (["--dropout", "1"], ["--cell", "tree"], ["--epochs", "0"], ["--lr", "0"], ["--decay", "1"]):
        with pytest.raises(SystemExit):
            train(*wrong)
        assert wrong[0] in capsys.readouterr().err


def test_text_options_are_for_language_models(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sums = datasets.addition(20, seed=0)
    lines = ["".join(sums.vocabulary[i] for i in (*x, *t)) for x, t in zip(sums.xs, sums.ts, strict=True)]
    Path("sums.txt").write_text("\n".join(lines))
    assert main(["train", "addition", "--data", "sums.txt", "--epochs", "1", "--quiet", "--out", "a"]) == 0
    capsys.readouterr()
    assert "--top-k is for language models, a is none" in error_of(capsys, main(["generate", "a", "--top-k", "2"]))
    for task in ("temperature", "length"):
        with pytest.raises(SystemExit):
            main(["generate", "a", f"--{task}", "-1"])
        assert f"argument --{task}" in capsys.readouterr().err
