"""SequenceClassifier: gradients, padding, Theano's tutorial and PyTorch, training; labelled texts; the command line."""

from __future__ import annotations

import io
import json
import lzma
import os
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
from fastlstm.datasets import pad_sequences
from fastlstm.datasets.tokenizers import split_words
from fastlstm.models import SequenceClassifier, WordVectors
from fastlstm.models.buckets import BucketedRows, row_lengths
from fastlstm.testing import check_gradient
from fastlstm.training import History

V, D, H, C, N = 9, 3, 4, 3, 6
RNG = np.random.default_rng(0)
LENGTHS = np.array([5, 1, 7, 3, 0, 7])
SEQUENCES = [RNG.integers(0, V, length) for length in LENGTHS]
XS = pad_sequences(SEQUENCES)
WITH_GAPS = np.where(RNG.random(XS.shape) < 0.3, -1, XS)
TS = np.array([0, 2, 1, 1, 0, -1])
KINDS: dict[str, dict[str, Any]] = {
    "mean": {},
    "last": {"pooling": "last"},
    "dropout": {"dropout": 0.4},
    "ifog": {"gate_order": "ifog"},
}


def make(kind: str = "mean", **options: Any) -> SequenceClassifier:
    """A model whose weights are large enough for every gradient to count."""
    sizes = {"vocab_size": V, "wordvec_size": D, "hidden_size": H, "num_classes": C, "seed": 1, "dtype": "float64"}
    model = SequenceClassifier(**{**sizes, **KINDS[kind], **options})
    rng = np.random.default_rng(2)
    for param in model.params:
        param += 0.5 * rng.standard_normal(param.shape)
    return model


def weights(model: SequenceClassifier) -> bytes:
    return b"".join(param.tobytes() for param in model.params)


# --------------------------------------------------------------------------------------------
# Forward and backward
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("xs", [XS, WITH_GAPS], ids=["padded", "gaps"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str, xs: IntArray) -> None:
    model = make(kind)
    random = model.rng.bit_generator.state

    def loss(**params: FloatArray) -> float:
        model.rng.bit_generator.state = random
        for name, param in model.named_parameters():
            param[...] = params[name]
        return model.forward(xs, TS)

    at = {name: param.copy() for name, param in model.named_parameters()}
    loss(**at)
    model.backward()
    check_gradient(loss, at, dict(zip(at, [grad.copy() for grad in model.grads], strict=True)))


@pytest.mark.parametrize("kind", KINDS)
def test_backends_agree(kind: str, compiled_backend: str) -> None:
    losses, grads = {}, {}
    for backend in ("numpy", compiled_backend):
        with fastlstm.use_backend(backend):
            model = make(kind)
            losses[backend] = model.forward(WITH_GAPS, TS)
            model.backward()
            grads[backend] = [grad.copy() for grad in model.grads]
    assert losses[compiled_backend] == pytest.approx(losses["numpy"], rel=1e-11)
    for a, b in zip(grads[compiled_backend], grads["numpy"], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-11)


def tutorial(xs: IntArray, p: Mapping[str, FloatArray]) -> FloatArray:
    """Probabilities by the equations of Theano's lstm.py, time first, gates in the order i, f, o, candidate."""

    def sigmoid(a: FloatArray) -> FloatArray:
        out: FloatArray = 1 / (1 + np.exp(-a))
        return out

    x, mask = np.maximum(xs.T, 0), (xs.T >= 0).astype(float)
    emb = p["embedding.W"][x]
    h, c = np.zeros((len(xs), H)), np.zeros((len(xs), H))
    proj = []
    for m, x_ in zip(mask[:, :, None], emb @ p["lstm.Wx"] + p["lstm.b"], strict=True):
        preact = h @ p["lstm.Wh"] + x_
        i, f, o = (sigmoid(preact[:, n * H : (n + 1) * H]) for n in range(3))
        c_ = f * c + i * np.tanh(preact[:, 3 * H :])
        c_ = m * c_ + (1 - m) * c
        h_ = o * np.tanh(c_)
        h, c = m * h_ + (1 - m) * h, c_
        proj.append(h)
    pooled = (np.array(proj) * mask[:, :, None]).sum(axis=0) / mask.sum(axis=0)[:, None]
    scores = np.exp(pooled @ p["output.W"] + p["output.b"])
    probabilities: FloatArray = scores / scores.sum(axis=1, keepdims=True)
    return probabilities


def test_it_is_the_model_of_theano_s_tutorial() -> None:
    model = make("ifog")
    rows = LENGTHS > 0  # the tutorial has no empty sequences
    np.testing.assert_allclose(model.predict(XS[rows]), tutorial(XS[rows], dict(model.named_parameters())), atol=1e-12)


@pytest.mark.needs_torch
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_loss_and_gradients_are_those_of_torch(pooling: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    model = make(pooling=pooling)
    rows = np.flatnonzero((LENGTHS > 0) & (TS >= 0))
    loss = model.forward(XS[rows], TS[rows])
    model.backward()
    p = dict(model.named_parameters())

    embedding = torch.nn.Embedding.from_pretrained(torch.tensor(p["embedding.W"]), freeze=False)
    lstm = torch.nn.LSTM(D, H, batch_first=True, dtype=torch.float64)
    output = torch.nn.Linear(H, C, dtype=torch.float64)
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(torch.tensor(p["lstm.Wx"].T))
        lstm.weight_hh_l0.copy_(torch.tensor(p["lstm.Wh"].T))
        lstm.bias_ih_l0.copy_(torch.tensor(p["lstm.b"]))
        lstm.bias_hh_l0.zero_()
        output.weight.copy_(torch.tensor(p["output.W"].T))
        output.bias.copy_(torch.tensor(p["output.b"]))
    lengths = torch.tensor(LENGTHS[rows])
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        embedding(torch.tensor(np.maximum(XS[rows], 0))), lengths, batch_first=True, enforce_sorted=False
    )
    hs, (h_n, _) = lstm(packed)
    hs, _ = torch.nn.utils.rnn.pad_packed_sequence(hs, batch_first=True)  # zeros behind the ends
    pooled = hs.sum(dim=1) / lengths[:, None] if pooling == "mean" else h_n[0]
    wanted = torch.nn.functional.cross_entropy(output(pooled), torch.tensor(TS[rows]))
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-12)
    for got, want in zip(
        model.grads,
        [
            embedding.weight.grad,
            lstm.weight_ih_l0.grad.T,
            lstm.weight_hh_l0.grad.T,
            lstm.bias_ih_l0.grad,
            output.weight.grad.T,
            output.bias.grad,
        ],
        strict=True,
    ):
        np.testing.assert_allclose(got, want.numpy(), atol=1e-12)


@pytest.mark.parametrize("kind", ["mean", "last"])
def test_padding_makes_no_difference(kind: str) -> None:
    model = make(kind)
    wanted = np.concatenate([model.predict([sequence]) for sequence in SEQUENCES])
    wider = np.concatenate((XS, np.full((N, 5), -1)), axis=1)
    other_ids = np.where(XS < 0, V - 1, XS)
    for got in (
        model.predict(SEQUENCES),
        model.predict(XS),
        model.predict(wider, batch_size=2),
        model.predict(other_ids, lengths=LENGTHS),
        model.predict(wider.astype(np.int16)),
    ):
        np.testing.assert_allclose(got, wanted, atol=1e-12)
    np.testing.assert_allclose(wanted.sum(axis=1), 1)
    np.testing.assert_array_equal(model.predict_classes(SEQUENCES), wanted.argmax(axis=1))
    assert model.forward(other_ids, TS, lengths=LENGTHS) == pytest.approx(model.forward(XS, TS), rel=1e-12)


def test_a_step_that_is_left_out_in_the_middle_is_as_if_it_were_not_there() -> None:
    model = make()
    gaps = [row[row >= 0] for row in WITH_GAPS]
    np.testing.assert_allclose(model.predict(WITH_GAPS), model.predict(gaps), atol=1e-12)


def test_nothing_to_read_is_zeros() -> None:
    model = make()
    b = dict(model.named_parameters())["output.b"]
    (p,) = model.predict([[]])
    np.testing.assert_allclose(np.log(p) - np.log(p[0]), b - b[0], atol=1e-12)
    assert model.predict([]).shape == (0, C)
    model.forward(np.full((2, 3), -1), np.array([0, 1]))
    model.backward()
    assert not any(grad.any() for grad in model.grads[:4])


def test_metrics() -> None:
    model = make()
    right = model.predict_classes(XS) == TS
    got = model.evaluate(SEQUENCES, TS, batch_size=2)
    assert got["accuracy"] == pytest.approx(right[:5].mean())  # the last target does not count
    assert got["error"] == pytest.approx(1 - got["accuracy"])
    p = model.predict(XS)[:5]
    assert got["loss"] == pytest.approx(-np.log(p[np.arange(5), TS[:5]]).mean())
    assert model.evaluate(XS, np.eye(C, dtype=int)[TS])["loss"] != got["loss"]  # there the last one counts
    assert model.evaluate(XS[:5], np.eye(C)[TS[:5]]) == pytest.approx(model.evaluate(XS[:5], TS[:5]))
    assert model.evaluate(XS, TS[:, None]) == model.evaluate(XS, TS)
    rows = np.eye(C)[TS]
    rows[-1] = 0.0
    assert model.evaluate(XS, rows) == model.evaluate(XS, TS)
    assert model.forward(XS, rows) == model.forward(XS, TS[:, None]) == model.forward(XS, TS)


# --------------------------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------------------------


def learnable(rows: int = 120) -> tuple[list[IntArray], IntArray]:
    """The class is which of the ids 1 and 2 comes first; the others are noise."""
    rng = np.random.default_rng(3)
    xs = [rng.integers(3, V, rng.integers(2, 12)) for _ in range(rows)]
    ts = rng.integers(0, 2, rows)
    for x, t in zip(xs, ts, strict=True):
        first, second = sorted(rng.choice(len(x), 2, replace=False))
        x[first], x[second] = (1, 2) if t else (2, 1)
    return xs, ts


def fit(model: SequenceClassifier, **options: Any) -> History:
    xs, ts = learnable()
    return model.fit(xs, ts, **{"epochs": 3, "batch_size": 16, "verbose": 0, **options})


@pytest.mark.parametrize("options", [{}, {"pooling": "last"}, {"dropout": 0.3}])
def test_a_model_learns_what_takes_a_memory(options: dict[str, Any]) -> None:
    model = SequenceClassifier(V, 8, 16, 2, seed=0, **options)
    xs, ts = learnable()
    history = fit(model, epochs=60, optimizer=optim.Adam(0.01), metrics=("loss", "accuracy", "error"))
    assert history.history["loss"][0] > 0.6
    assert model.evaluate(xs, ts)["error"] == 0
    assert history.history["error"] == pytest.approx([1 - accuracy for accuracy in history.history["accuracy"]])


def test_fit_as_in_keras(tmp_path: Path) -> None:
    model = SequenceClassifier(V, 8, 16, 2, seed=0)
    xs, ts = learnable()
    padded = pad_sequences(xs)
    saved = callbacks.ModelCheckpoint(tmp_path / "best", "val_accuracy", save_best_only=True)
    csv = callbacks.CSVLogger(tmp_path / "history.csv")
    split = fit(model, validation_split=0.25, metrics=("accuracy",), callbacks=[saved, csv])
    assert list(split.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert (tmp_path / "history.csv").read_text().startswith("epoch,loss,accuracy,val_loss,val_accuracy\n1,")
    best = SequenceClassifier.load(tmp_path / "best")
    assert best.evaluate(xs[90:], ts[90:])["accuracy"] == max(split.history["val_accuracy"])

    given = SequenceClassifier(V, 8, 16, 2, seed=0)
    lengths = row_lengths(padded)
    by_data = given.fit(
        np.maximum(padded[:90], 0),
        np.eye(2)[ts[:90]],
        lengths=lengths[:90],
        validation_data=(np.maximum(padded[90:], 0), ts[90:], lengths[90:]),
        epochs=3,
        batch_size=16,
        metrics=("accuracy",),
        verbose=0,
    )
    assert by_data.history == split.history
    assert weights(given) == weights(model)


def test_batches_of_similar_lengths_hold_every_row_once() -> None:
    xs, ts = learnable(500)
    model = SequenceClassifier(V, 8, 16, 2, seed=0)
    source = BucketedRows(*model.check_batch(xs, ts), 7, "cpu")
    lengths = row_lengths(source.xs)
    orders = []
    for epoch in range(2):
        before = model.rng.bit_generator.state
        order = source.draw_order(model.rng)
        model.rng.bit_generator.state = before
        source.begin_epoch(epoch, model.rng)
        np.testing.assert_array_equal(np.concatenate([ts for _, ts in source]), source.ts[order])
        np.testing.assert_array_equal(np.sort(order), np.arange(500))
        computed = sum(lengths[order[start : start + 7]].max() * 7 for start in range(0, 497, 7))
        assert computed < 1.1 * lengths[order].sum()
        firsts = lengths[order[: 71 * 7].reshape(71, 7)[:, 0]]
        assert (np.diff(firsts) < 0).any()  # not from short to long
        orders.append(order)
    assert not np.array_equal(orders[0], orders[1])


@pytest.mark.parametrize("bucket", [False, True])
@pytest.mark.parametrize("at", [(0, 0), (1, 2), (2, 6)])
def test_an_interrupted_training_goes_on_with_the_same_bits(at: tuple[int, int], bucket: bool, tmp_path: Path) -> None:
    def ctrl_c(batch: int, _: Mapping[str, float]) -> None:
        if (len(part_epochs), batch) == at:
            signal.raise_signal(signal.SIGINT)

    part_epochs: list[int] = []
    press = callbacks.LambdaCallback(on_train_batch_end=ctrl_c, on_epoch_end=lambda epoch, _: part_epochs.append(epoch))
    options: dict[str, Any] = {"bucket_by_length": bucket, "validation_split": 0.1, "metrics": ("error",)}
    whole, part, resumed = (SequenceClassifier(V, 8, 16, 2, dropout=0.5, seed=0) for _ in range(3))
    wanted = fit(whole, **options).history
    backup = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fit(part, callbacks=[press, callbacks.BackupAndRestore(backup)], **options)
    assert fit(resumed, callbacks=[callbacks.BackupAndRestore(backup)], **options).history == wanted
    assert weights(resumed) == weights(whole)


def test_a_checkpoint_of_another_order_is_refused(tmp_path: Path) -> None:
    backup = callbacks.BackupAndRestore(tmp_path / "checkpoint", delete_checkpoint=False)
    fit(SequenceClassifier(V, 8, 16, 2, seed=0), callbacks=[backup], bucket_by_length=True)
    fit(SequenceClassifier(V, 8, 16, 2, seed=0), callbacks=[backup], bucket_by_length=True, epochs=4)
    with pytest.raises(ValueError, match="belongs to another training: bucket_by_length was True, now it is None"):
        fit(SequenceClassifier(V, 8, 16, 2, seed=0), callbacks=[backup])


@pytest.mark.parametrize("bucket", [False, True])
def test_any_number_of_threads_gives_the_same_bits(bucket: bool) -> None:
    rng = np.random.default_rng(0)
    xs, ts = [rng.integers(0, 300, rng.integers(5, 40)) for _ in range(96)], rng.integers(0, 2, 96)
    made = []
    for threads in (1, 2, 3):
        fastlstm.set_num_threads(threads)
        model = SequenceClassifier(300, 64, 64, 2, dropout=0.5, seed=0)
        model.fit(xs, ts, epochs=1, batch_size=16, verbose=0, bucket_by_length=bucket)
        made.append(weights(model))
    assert made[0] == made[1] == made[2]


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    model = make("ifog", pooling="last", dropout=0.5)
    model.vocabulary, model.classes = [f"word{i}" for i in range(V)], ["bad", "so so", "good"]
    model.save(tmp_path / "model")
    loaded = SequenceClassifier.load(tmp_path / "model")
    assert (loaded.options, loaded.vocabulary, loaded.classes) == (model.options, model.vocabulary, model.classes)
    np.testing.assert_array_equal(loaded.predict(XS), model.predict(XS))


def test_summary_counts_gates(capsys: pytest.CaptureFixture[str]) -> None:
    table = SequenceClassifier(10_000, 128, 128, 2).summary()
    assert capsys.readouterr().out == table + "\n"
    assert "lstm: 4 gates x (128 x (128 + 128) + 128) = 131,584" in table
    assert table.splitlines()[-1] == "1,411,842 parameters"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 0}, "vocab_size is 0, expected at least 1"),
        ({"num_classes": 0}, "num_classes is 0, expected at least 1"),
        ({"pooling": "max"}, "pooling is 'max', expected 'mean' or 'last'"),
        ({"dropout": 1.0}, "expected at least 0 and below 1"),
        ({"dtype": "float16"}, "dtype is float16, expected float32 or float64"),
        ({"gate_order": "ifgg"}, "gate_order"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"xs": XS[0]}, ValueError, r"xs has shape \(7,\), expected two axes"),
        ({"xs": XS.astype(float)}, TypeError, "xs has dtype float64, expected integer ids"),
        ({"xs": XS + V}, IndexError, r"xs holds .*, expected 0 to 8 \(vocab_size = 9\), or -1 for padding"),
        ({"xs": XS - 1}, IndexError, "xs holds -2, expected 0 to 8"),
        ({"xs": [[1, 2], [[3]]]}, ValueError, r"xs\[1\] has shape \(1, 1\), expected one axis"),
        ({"xs": [[1, 2], [0.5]]}, TypeError, r"xs\[1\] has dtype float64, expected integer ids"),
        ({"xs": [[1, -1]]}, IndexError, r"xs\[0\] holds -1; ids start at 0"),
        ({"xs": XS[1:]}, ValueError, "xs has 5 rows and ts 6; they belong together row by row"),
        ({"ts": TS + 0.5}, TypeError, "ts has dtype float64, expected integer classes"),
        ({"ts": TS[:, None, None]}, ValueError, r"ts has shape \(6, 1, 1\), expected classes, \(examples,\), a column"),
        ({"ts": np.zeros((6, 2), int)}, ValueError, r"ts has shape \(6, 2\), expected one-hot rows of V = 3, ids of 1"),
        (
            {"ts": np.full((6, 3), 1 / 3)},
            ValueError,
            r"ts\[0\] holds 0\.33.*, 0\.33.*, 0\.33.* beside zeros, expected a",
        ),
        ({"ts": TS + 1}, IndexError, r"ts holds 3, expected 0 to 2 \(num_classes = 3\), or -1 to ignore it"),
        ({"lengths": LENGTHS + 1}, ValueError, "lengths has values from 1 to 8, expected 0 to T = 7"),
        ({"bucket_by_length": True, "shuffle": False}, ValueError, "it needs shuffle=True"),
        ({"metrics": ("f1",)}, ValueError, "unknown metric 'f1'; SequenceClassifier has loss, accuracy, error"),
    ],
)
def test_bad_arguments_of_fit(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    model = make()
    before = weights(model)
    with pytest.raises(error, match=message):
        model.fit(**{"xs": XS, "ts": TS, "epochs": 1, "batch_size": 2, "verbose": 0, **arguments})
    assert weights(model) == before


def test_metrics_need_a_forward_call() -> None:
    with pytest.raises(RuntimeError, match="batch_metrics was called before forward"):
        make().batch_metrics(("error",))


# --------------------------------------------------------------------------------------------
# Labelled texts
# --------------------------------------------------------------------------------------------

LINES = "1\tGood, good film!\n0\t2\tneg/0\tIt's bad<br /><br />film\n1\tgood\n0\tbad bad bad dull dull boring\n"


def test_words() -> None:
    assert split_words("It's GOOD, isn’t it?<br />Très bien") == [
        *("it's", "good", ",", "isn’t", "it", "?", "très", "bien"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("e\u0301te\u0301 été", ["été", "été"]),
        ("İSTANBUL'da I\u0307 istanbul", ["istanbul'da", "i", "istanbul"]),
        ("Ḱ\u0323o", ["ḳ\u0301o"]),  # without a sign of its own
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("\u2764\ufe0f good 1\ufe0f\u20e3!", ["\u2764\ufe0f", "good", "1\ufe0f\u20e3", "!"]),
        ("葛\U000e0100城 \u0301a", ["葛\U000e0100城", "\u0301", "a"]),
        ("a_b c-d", ["a_b", "c", "-", "d"]),
    ],
)
def test_marks_belong_to_what_they_stand_on(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_an_unknown_word_is_no_other_word() -> None:
    with pytest.raises(ValueError, match="'zebra' in 'good zebra' is not in the vocabulary of 2 words.*no '<unk>'"):
        datasets.encode_texts(["good zebra"], ["good", "bad"])
    (ids,) = datasets.encode_texts(["zebra <unk> bad"], ["good", "bad", "<unk>"])
    assert ids.tolist() == [2, 2, 2, 2, 1]  # what is written <unk> is three unknown signs
    with pytest.raises(TypeError, match=r"texts is the string 'a good film', expected a sequence of texts such as \["):
        datasets.encode_texts("a good film", ["<unk>", "good"])


@pytest.mark.parametrize("suffix", [".txt", ".tsv.xz"])
def test_a_file_with_labels(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = LINES.replace("\n", "\r\n").encode()
    (tmp_path / f"texts{suffix}").write_bytes(lzma.compress(content) if suffix.endswith("xz") else content)
    monkeypatch.setenv("FASTLSTM_DATA_DIR", str(tmp_path))
    text = datasets.labelled_text(f"texts{suffix}")
    assert text.classes == ["0", "1"]
    np.testing.assert_array_equal(text.ts, [1, 0, 1, 0])
    assert text.vocabulary == ["<unk>", "bad", "good", "film", "dull", ",", "!", "it's", "boring"]
    words = [[text.vocabulary[i] for i in ids] for ids in text.xs]
    assert words == [
        ["good", ",", "good", "film", "!"],
        ["it's", "bad", "film"],
        ["good"],
        ["bad", "bad", "bad", "dull", "dull", "boring"],
    ]
    few = datasets.labelled_text(f"texts{suffix}", vocab_size=3, maxlen=4, limit=3)
    assert few.vocabulary == ["<unk>", "good", "film"]
    assert [ids.tolist() for ids in few.xs] == [[0, 1, 2, 0], [0, 0, 2], [1]]
    first = datasets.labelled_text(f"texts{suffix}", vocabulary=few.vocabulary, maxlen=4, longer="first")
    assert [ids.tolist() for ids in first.xs] == [[1, 0, 1, 2], [0, 0, 2], [1], [0, 0, 0, 0]]
    dropped = datasets.labelled_text(f"texts{suffix}", vocab_size=3, maxlen=5, longer="drop")
    np.testing.assert_array_equal(dropped.ts, [1, 0, 1])
    assert [len(ids) for ids in dropped.xs] == [5, 3, 1]
    (again,) = datasets.encode_texts(["Dull GOOD film, unheard-of"], text.vocabulary)
    assert again.tolist() == [4, 2, 3, 5, 0, 0, 0]


def test_labels_that_are_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("".join(f"{label}\ttext\n" for label in (10, 9, 1, 9)))
    text = datasets.labelled_text(tmp_path / "texts")
    assert (text.classes, text.ts.tolist()) == (["1", "9", "10"], [2, 1, 0, 1])
    again = datasets.labelled_text(tmp_path / "texts", vocabulary=text.vocabulary, classes=["10", "9", "1"])
    assert again.ts.tolist() == [0, 1, 2, 1]
    with pytest.raises(ValueError, match="the label '9' is none of the classes 1, 10"):
        datasets.labelled_text(tmp_path / "texts", classes=["1", "10"])


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "a" / "neg").mkdir(parents=True)
    (tmp_path / "a" / "pos").mkdir()
    for name, content in {"neg/0_2": "bad\nfilm", "neg/1_1": "dull", "pos/0_9": "good"}.items():
        (tmp_path / "a" / f"{name}.txt").write_text(content)
    text = datasets.labelled_text(tmp_path / "a")
    assert (text.classes, text.ts.tolist()) == (["neg", "pos"], [0, 0, 1])
    assert [len(ids) for ids in text.xs] == [2, 1, 1]
    assert datasets.labelled_text(tmp_path / "a", limit=1).ts.tolist() == [0, 1]

    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.neg").write_text("bad film\ndull\n")
    (tmp_path / "b" / "SOURCE.txt").write_text("from somewhere")
    with pytest.raises(FileNotFoundError, match=r"a folder without one file NAME\.pos or a folder pos\. A file has"):
        datasets.labelled_text(tmp_path / "b")
    (tmp_path / "b" / "x.pos.xz").write_bytes(lzma.compress(b"good\n"))
    assert datasets.labelled_text(tmp_path / "b").ts.tolist() == [0, 0, 1]
    (tmp_path / "b" / "x.neg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"x\.neg is empty"):
        datasets.labelled_text(tmp_path / "b")
    (tmp_path / "b" / "x.neg").write_text("bad film\n\n")
    with pytest.raises(ValueError, match=r"x\.neg, line 2: there is no text"):
        datasets.labelled_text(tmp_path / "b")

    for label in ("neg", "pos"):
        (tmp_path / "c" / label).mkdir(parents=True)
    for label in ("neg", "pos"):
        with pytest.raises(FileNotFoundError, match=rf"c/{label} holds no file NAME\.txt, expected one for each text"):
            datasets.labelled_text(tmp_path / "c")
        (tmp_path / "c" / label / "1.txt").write_text("film")
    assert datasets.labelled_text(tmp_path / "c").ts.tolist() == [0, 1]
    (tmp_path / "c" / "pos" / "2.txt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2\.txt is empty"):
        datasets.labelled_text(tmp_path / "c")


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {}, "is empty"),
        (b"0\tbad\n1\tgood \xff\n", {}, "line 2: no UTF-8"),
        (b"0\tbad\n1 good\n", {}, "line 2: '1 good' is no label, tab and text"),
        (b"0\tbad\n\tgood\n", {}, "line 2: '.tgood' is no label"),
        (b"0\tbad\n1\t \n", {}, "line 2: '1.t ' is no label"),
        (b"0\tbad\n0\tworse\n", {}, "all 2 texts have the label '0', expected at least two"),
        (b"0\tso bad\n1\tso good\n", {"maxlen": 1, "longer": "drop"}, "no text has at most 1 words"),
        (b"0\tbad\n1\tgood\n", {"maxlen": 0}, "maxlen is 0, expected at least 1"),
        (b"0\tbad\n1\tgood\n", {"vocab_size": 0}, "vocab_size is 0"),
        (b"0\tbad\n1\tgood\n", {"longer": "middle"}, "longer is 'middle', expected 'last', 'first' or 'drop'"),
        (b"0\tbad\n1\tgood\n", {"vocabulary": ["a"], "vocab_size": 3}, "vocab_size is for making a vocabulary"),
    ],
)
def test_bad_labelled_texts(content: bytes, options: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "texts").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        datasets.labelled_text(tmp_path / "texts", **options)


# --------------------------------------------------------------------------------------------
# fastlstm train sentiment, generate
# --------------------------------------------------------------------------------------------

SMALL = ["--epochs", "2", "--hidden-size", "8", "--wordvec-size", "8", "--lr", "0.01"]
RUN_FILES = {"model.safetensors", "checkpoint.safetensors", "history.csv", "config.json", "loss.png", "error.png"}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of reviews that are easy to tell apart, in an otherwise empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTLSTM_DATA_DIR", raising=False)
    path = tmp_path / "reviews.tsv"
    path.write_text(reviews(120, seed=0))
    return path


def reviews(n: int, seed: int) -> str:
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(n):
        words = rng.choice(["the", "film", "was", "a", "story"], rng.integers(1, 9)).tolist()
        words.insert(int(rng.integers(0, len(words) + 1)), ["dreadful", "wonderful"][i % 2])
        lines.append(f"{i % 2}\t{' '.join(words)}\n")
    return "".join(lines)


def train(*arguments: str | Path) -> int:
    return main(["train", "sentiment", *map(str, arguments)])


def test_training_leaves_a_run_folder(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train("--data", data, *SMALL, "--epochs", "12", "--seed", "1") == 0
    out = capsys.readouterr().out
    assert "texts: 96 to learn from, 12 to validate on, 12 to test on; 8 words\n" in out
    assert "classes: 2: 0 (60 texts), 1 (60 texts)\n" in out
    assert "  epoch 12: error training " in out
    assert out.splitlines()[-1] == "run folder: runs/sentiment-1"
    run = Path("runs/sentiment-1")
    assert {path.name for path in run.iterdir()} == RUN_FILES
    for name in ("loss.png", "error.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")
    header, *rows = (run / "history.csv").read_text().splitlines()
    assert header == "epoch,loss,error,val_loss,val_error,test_error,learning_rate,seconds"
    result = json.loads((run / "config.json").read_text())["result"]
    best = rows[result["epoch"] - 1].split(",")
    assert [float(best[i]) for i in (2, 4, 5)] == [result[name] for name in ("error", "val_error", "test_error")]
    assert result["val_error"] == min(float(row.split(",")[4]) for row in rows)
    assert result["test_error"] < 0.2

    assert main(["generate", str(run), "A wonderful film", "dreadful"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "0"]
    assert lines[0].endswith("%: A wonderful film")
    model = SequenceClassifier.load(run / "model.safetensors")
    assert model.vocabulary is not None
    (p,) = model.predict(datasets.encode_texts(["A wonderful film"], model.vocabulary))
    assert lines[0].split()[1] == f"{p[1]:.1%}:"
    monkeypatch.setattr("sys.stdin", iter(["A wonderful film\n"]))
    assert main(["generate", str(run)]) == 0
    assert capsys.readouterr().out == lines[0] + "\n"
    assert "' ' has no words" in error_of(capsys, main(["generate", str(run), " "]))
    assert "--length is for language models" in error_of(capsys, main(["generate", str(run), "x", "--length", "3"]))


def test_a_run_begins_with_word_vectors(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    WordVectors(["film", "dreadful"], np.eye(2, 5, dtype=np.float32)).save_word2vec_format("vectors.txt")
    layers = ("--cell", "gru", "--num-layers", 2, "--bidirectional", "--freeze-embeddings")
    begin = ("--data", data, "--embeddings", "vectors.txt")
    small = ("--epochs", 2, "--hidden-size", 8, "--quiet", "--out", "r")
    assert train(*map(str, (*begin, *small, *layers))) == 0
    model = SequenceClassifier.load("r/model.safetensors")
    assert model.vocabulary is not None
    film = model.layers["embedding"].params[0][model.vocabulary.index("film")]
    np.testing.assert_array_equal(film, [1, 0, 0, 0, 0])
    assert list(model.layers) == ["embedding", "gru1", "gru2", "pooling", "output"]
    assert main(["generate", "r", "A wonderful film"]) == 0
    error = error_of(capsys, main(["train", "sentiment", "--data", str(data), "--embeddings", "nowhere"]))
    assert "nowhere does not exist" in error
    assert "leave out --wordvec-size" in error_of(capsys, train(*begin, *SMALL))


def test_generate_answers_line_by_line(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train("--data", data, *SMALL, "--quiet", "--out", "r") == 0
    capsys.readouterr()
    lines = b"\xef\xbb\xbfdreadful\r\n \r\n<br />\ncaf\xe9\nA film\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert main(["generate", "r"]) == 2
    out, err = capsys.readouterr()
    assert [line.partition(": ")[2] for line in out.splitlines()] == ["dreadful", "", "", "", "A film"]
    assert err.splitlines() == [
        "fastlstm: stdin, line 3: '<br />' has no words",
        "fastlstm: stdin, line 4: no UTF-8 (unexpected end of data); convert the text, for instance with "
        "iconv -f ITS_ENCODING -t UTF-8",
    ]


def test_many_classes_are_counted(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.write_text("".join(f"{i % 12}\tword {i}\n" for i in range(120)))
    assert train("--data", data, *SMALL) == 0
    assert "classes: 12: 0 (10 texts), 1 (10 texts), " in (out := capsys.readouterr().out)
    assert "9 (10 texts), ...\n" in out


@pytest.mark.parametrize("longer", ["last", "first", "drop"])
def test_a_set_with_a_test_part(longer: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = data.parent / "sets" / "aclimdb"
    folder.mkdir(parents=True)
    (folder / "train.tsv.xz").write_bytes(lzma.compress(reviews(100, seed=1).encode()))
    (folder / "test.tsv.xz").write_bytes(lzma.compress(reviews(40, seed=2).encode()))
    monkeypatch.setenv("FASTLSTM_DATA_DIR", str(data.parent / "sets"))
    assert train(*SMALL, "--quiet", "--out", "r", "--maxlen", "4", "--longer", longer, "--no-bucket-by-length") == 0
    model = SequenceClassifier.load("r/model.safetensors")
    assert model.classes == ["negative", "positive"]
    assert model.vocabulary is not None
    options: dict[str, Any] = {} if longer == "drop" else {"maxlen": 4, "longer": longer}
    test = datasets.labelled_text(folder / "test.tsv.xz", vocabulary=model.vocabulary, **options)
    assert len(test.xs) == 40
    config = json.loads(Path("r/config.json").read_text())
    assert config["options"]["data"] == str(folder)
    assert model.evaluate(test.xs, test.ts)["error"] == config["result"]["test_error"]


def test_ctrl_c_leaves_a_run_that_goes_on_with_the_same_bits(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", str(data), *SMALL, "--epochs", "60", "--batch-size", "4", "--quiet"]
    assert train(*options, "--out", "whole") == 0
    interrupt_a_training("sentiment", *options)
    assert {path.name for path in Path("part").iterdir()} == {"checkpoint.safetensors", "history.csv", "config.json"}
    assert train("--resume", "part") == 0
    assert Path("part/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    assert without_seconds(Path("part/history.csv")) == without_seconds(Path("whole/history.csv"))
    assert {path.name for path in Path("part").iterdir()} == RUN_FILES
    capsys.readouterr()
    assert "part is finished" in error_of(capsys, train("--resume", "part"))


def test_mistakes_leave_no_run_folder(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "ai.stanford.edu/~amaas/data/sentiment" in error_of(capsys, train())
    data.write_text("0\tbad\n1\tgood\n" * 3)
    assert "has 6 texts; --hold-out 0.1 leaves 6 to learn from and 0 to validate on" in error_of(
        capsys, train("--data", data)
    )
    assert "leaves 0 to learn from and 3 to validate on" in error_of(capsys, train("--data", data, "--hold-out", "0.5"))
    data.write_text("".join(f"{i}\ttext {i}\n" for i in range(40)))
    different = "has 40 different labels for 40 texts, expected several texts of each; a line is LABEL TAB TEXT"
    assert error_of(capsys, train("--data", data)).endswith(different)
    data.write_text("".join(f"text {i}\t{'good' if i % 2 else 'bad'}\n" for i in range(40)))
    assert error_of(capsys, train("--data", data)).endswith(f"{different}, and the columns look swapped")
    data.write_text("".join(f"0\ttext {i}\n" for i in range(40)))
    assert "all 40 texts have the label '0', expected at least two" in error_of(capsys, train("--data", data))
    data.write_text("bad\n")
    assert "line 1: 'bad' is no label, tab and text" in error_of(capsys, train("--data", data))
    with pytest.raises(SystemExit):
        train("--longer", "middle")
    assert not Path("runs").exists()


# --------------------------------------------------------------------------------------------
# The real data
# --------------------------------------------------------------------------------------------

needs_data = pytest.mark.skipif("FASTLSTM_DATA_DIR" not in os.environ, reason="FASTLSTM_DATA_DIR is not set")


@needs_data
def test_reviews_are_told_apart_after_a_part_of_imdb() -> None:
    train_part = datasets.labelled_text("aclimdb/train.tsv.xz", vocab_size=5000, maxlen=60, limit=1500)
    assert (len(train_part.vocabulary), np.bincount(train_part.ts).tolist()) == (5000, [750, 750])
    test = datasets.labelled_text("aclimdb/test.tsv.xz", vocabulary=train_part.vocabulary, maxlen=60, limit=500)
    model = SequenceClassifier(5000, 32, 32, 2, dropout=0.5, seed=0)
    model.fit(
        train_part.xs,
        train_part.ts,
        epochs=4,
        batch_size=16,
        optimizer=optim.Adam(0.003),
        bucket_by_length=True,
        verbose=0,
    )
    assert model.evaluate(test.xs, test.ts)["error"] < 0.35


@needs_data
def test_the_sentences_of_rt_polarity() -> None:
    text = datasets.labelled_text("rt_polarity")
    assert (text.classes, np.bincount(text.ts).tolist()) == (["neg", "pos"], [5331, 5331])
    assert all(len(ids) for ids in text.xs)
