"""Seq2seq: gradients of every kind, generating, seeds, files."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from tiny_models import MAKERS

import fastlstm
from fastlstm.contract import FloatArray, IntArray
from fastlstm.models import RNNLM, Seq2seq
from fastlstm.tensor_file import read_tensor_file, write_tensor_file
from fastlstm.testing import check_gradient

V, D, H, N, S, T = 9, 3, 4, 5, 6, 4
RNG = np.random.default_rng(0)
XS = RNG.integers(0, V, (N, S))
TS = RNG.integers(0, V, (N, T))
TS_WITH_GAPS = np.where(RNG.random((N, T)) < 0.3, -1, TS)
TS_WITH_GAPS[:, 0] = TS[:, 0]

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "reversed": {"reverse_source": True},
    "shared": {"share_embedding": True},
    "peeky": {"peeky": True},
    "attention": {"attention": True},
    "bidirectional": {"bidirectional": True},
    "h alone": {"pass_cell_state": False},
    "two vocabularies": {"target_vocab_size": 11},
    "three layers": {"num_layers": 3, "peeky": True, "pass_cell_state": False},
    "everything": {
        "reverse_source": True,
        "share_embedding": True,
        "peeky": True,
        "attention": True,
        "bidirectional": True,
        "num_layers": 2,
    },
}


def make(kind: str = "plain", **options: Any) -> Seq2seq:
    """A model whose weights are large enough for every gradient to count."""
    model = Seq2seq(V, D, H, **{"seed": 1, "dtype": "float64", **KINDS[kind], **options})
    rng = np.random.default_rng(2)
    for param in model.params:
        param += 0.5 * rng.standard_normal(param.shape)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str) -> None:
    model = make(kind)

    def loss(**params: FloatArray) -> float:
        for name, param in model.named_parameters():
            param[...] = params[name]
        return model.forward(XS, TS_WITH_GAPS)

    at = {name: param.copy() for name, param in model.named_parameters()}
    loss(**at)
    model.backward()
    check_gradient(loss, at, dict(zip(at, [grad.copy() for grad in model.grads], strict=True)))


def test_gradients_with_dropout() -> None:
    model = make("everything", dropout=0.4)
    state = model.rng.bit_generator.state

    def loss(**params: FloatArray) -> float:
        model.rng.bit_generator.state = state
        for name, param in model.named_parameters():
            param[...] = params[name]
        return model.forward(XS, TS)

    at = {name: param.copy() for name, param in model.named_parameters()}
    with_dropout = loss(**at)
    model.backward()
    check_gradient(loss, at, dict(zip(at, [grad.copy() for grad in model.grads], strict=True)))
    loss(**at)
    without_dropout = model.forward(XS, TS, training=False)
    assert without_dropout == pytest.approx(make("everything").forward(XS, TS))
    assert without_dropout != pytest.approx(with_dropout, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_metrics_are_the_same_with_and_without_training(kind: str) -> None:
    model = make(kind)
    names = ("accuracy", "token_accuracy")
    loss, metrics = model.forward(XS, TS_WITH_GAPS), model.batch_metrics(names)
    assert model.forward(XS, TS_WITH_GAPS, training=False) == pytest.approx(loss)
    assert model.batch_metrics(names) == metrics


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_answers_follow_the_likeliest_ids(kind: str) -> None:
    model = make(kind)
    written = model.generate(XS, 2, T)
    assert written.shape == (N, T)
    # Given what was written, every id is the likeliest to come next.
    read = np.concatenate((np.full((N, 1), 2), written[:, :-1]), axis=1)
    np.testing.assert_array_equal(model.predict(XS, read).argmax(axis=-1), written)
    np.testing.assert_array_equal(model.generate(XS[1:2], 2, T), written[1:2])


def test_accuracy_is_the_share_of_rows_that_generate_writes() -> None:
    model = make()
    written = model.generate(XS, 2, T)
    ts = np.concatenate((np.full((N, 1), 2), written), axis=1)
    ts[0, 2] = (ts[0, 2] + 1) % V
    ts[1, -1] = -1
    ts[3, 1:] = -1  # nothing to be right about
    model.forward(XS, ts)
    assert model.batch_metrics(["accuracy"]) == {"accuracy": (3.0, 4)}
    right, total = model.batch_metrics(["token_accuracy"])["token_accuracy"]
    assert total == 4 * T - 1
    assert right < total
    scores = model.evaluate(XS, ts, batch_size=2)
    assert set(scores) == {"loss", "accuracy", "token_accuracy"}
    assert scores["accuracy"] == pytest.approx(3 / 4)
    assert scores["loss"] == pytest.approx(model.forward(XS, ts))


def log_p_of(model: Seq2seq, xs: IntArray, start_id: int, row: tuple[int, ...]) -> float:
    p = model.predict(xs[None], np.array([[start_id, *row[:-1]]]))[0]
    return float(np.log(p[np.arange(len(row)), list(row)]).sum())


@pytest.mark.parametrize("kind", ["plain", "everything"])
def test_a_beam_that_holds_everything_finds_the_likeliest_row(kind: str) -> None:
    model = make(kind)
    best = [max(itertools.product(range(V), repeat=3), key=lambda row: log_p_of(model, x, 2, row)) for x in XS[:2]]
    np.testing.assert_array_equal(model.generate(XS[:2], 2, 3, beam=V * V), best)


def test_a_beam_ends_rows_at_the_end_symbol() -> None:
    model = make()
    for x, row in zip(XS, model.generate(XS, 2, 3, beam=V**3, end_id=5), strict=True):
        length = list(row).index(5) + 1 if 5 in row else 3
        assert (row[length:] == 5).all()
        ended = [r[: r.index(5) + 1] if 5 in r else r for r in map(tuple, itertools.product(range(V), repeat=3))]
        likeliest = max(log_p_of(model, x, 2, r) for r in set(ended))
        assert log_p_of(model, x, 2, tuple(int(i) for i in row[:length])) == pytest.approx(likeliest)


def test_generate_stops_rows_at_the_end_symbol() -> None:
    model = make()
    free = model.generate(XS, 2, 8)
    end = int(free[0, 1])
    stopped = model.generate(XS, 2, 8, end_id=end)
    for row, want in zip(stopped, free, strict=True):
        length = list(want).index(end) + 1 if end in want else 8
        np.testing.assert_array_equal(row[:length], want[:length])
        assert (row[length:] == end).all()


def test_generate_of_no_source_is_empty() -> None:
    assert make().generate(XS[:0], 2, 3).shape == (0, 3)
    assert make().generate(XS[:0], 2, 3, beam=2).shape == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((XS[0], 2, 3), {}, r"xs has shape \(6,\), expected \(N, S\)"),
        ((XS, V, 3), {}, "start_id is 9, expected 0 to 8"),
        ((XS, -1, 3), {}, "start_id is -1, expected 0 to 8"),
        ((XS, 2, 0), {}, "max_len is 0, expected at least 1"),
        ((XS, 2, 3), {"beam": 0}, "beam is 0, expected at least 1"),
        ((XS, 2, 3), {"end_id": V}, "end_id is 9, expected 0 to 8"),
        ((XS, 2.0, 3), {}, "start_id is float 2.0, expected a whole number"),
        ((XS + V, 2, 3), {}, "xs holds .*, expected 0 to 8"),
    ],
)
def test_bad_arguments_of_generate(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError, IndexError), match=message):
        make().generate(*arguments, **options)


def test_attention_weights() -> None:
    model = make("attention")
    model.forward(XS, TS)
    assert len(model.attention_weights) == T - 1
    for weights in model.attention_weights:
        np.testing.assert_allclose(weights.sum(axis=1), 1)
    with pytest.raises(ValueError, match="attention=True"):
        _ = make().attention_weights


# --------------------------------------------------------------------------------------------
# Construction
# --------------------------------------------------------------------------------------------


def test_initial_weights_are_those_of_the_book() -> None:
    model = Seq2seq(200, 100, 150, seed=0)
    params = dict(model.named_parameters())
    for name, spread in {
        "encoder.embedding.W": 0.01,
        "encoder.lstm1.Wx": 1 / np.sqrt(100),
        "encoder.lstm1.Wh": 1 / np.sqrt(150),
        "decoder.lstm1.Wh": 1 / np.sqrt(150),
        "output.W": 1 / np.sqrt(150),
    }.items():
        assert params[name].std() == pytest.approx(spread, rel=0.02), name
        assert abs(params[name].mean()) < 0.02 * spread, name
    assert not params["encoder.lstm1.b"].any()
    assert {param.dtype for param in params.values()} == {np.dtype(np.float32)}


def test_a_seed_fixes_the_weights() -> None:
    same = zip(Seq2seq(V, D, H, seed=3).params, Seq2seq(V, D, H, seed=3).params, strict=True)
    assert all(np.array_equal(a, b) for a, b in same)
    assert not np.array_equal(Seq2seq(V, D, H, seed=3).params[0], Seq2seq(V, D, H, seed=4).params[0])
    assert not np.array_equal(Seq2seq(V, D, H).params[0], Seq2seq(V, D, H).params[0])


def test_a_shared_embedding_counts_once() -> None:
    model, apart = make("shared"), make()
    assert model.num_parameters == apart.num_parameters - V * D
    assert len(model.params) == len({id(param) for param in model.params}) == len(apart.params) - 1


def test_summary_lists_every_layer(capsys: pytest.CaptureFixture[str]) -> None:
    model = make("everything")
    table = model.summary()
    assert capsys.readouterr().out == table + "\n"
    lines = table.splitlines()
    for name in model.layers:
        assert any(line.startswith(name) for line in lines), name
    assert any("W of encoder.embedding.W" in line for line in lines)
    assert lines[-1] == f"{model.num_parameters:,} parameters"
    counts = [
        int(line.split()[-1].replace(",", "")) for line in lines if line.startswith(("encoder", "decoder", "out"))
    ]
    assert sum(counts) == model.num_parameters


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, D, H), {}, "vocab_size is 0, expected at least 1"),
        ((V, D, H), {"num_layers": 0}, "num_layers is 0, expected at least 1"),
        ((V, D, 2.5), {}, "hidden_size is float 2.5, expected a whole number"),
        ((V, D, H), {"seed": -1}, "seed is -1, expected at least 0"),
        ((V, D, H), {"dtype": "float16"}, "dtype is float16, expected float32 or float64"),
        ((V, D, H), {"dropout": 1.0}, "expected at least 0 and below 1"),
        ((V, D, H), {"share_embedding": True, "target_vocab_size": 5}, "share_embedding needs one vocabulary"),
    ],
)
def test_bad_options(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Seq2seq(*arguments, **options)


@pytest.mark.parametrize(
    ("xs", "ts", "message"),
    [
        (XS[0], TS, r"xs has shape \(6,\), expected two axes"),
        (XS.astype(float), TS, "xs has dtype float64, expected integer ids"),
        (XS[1:], TS, "xs has 4 rows and ts 5"),
        (XS, TS[:, :1], "expected at least 2 steps"),
        (XS + V, TS, r"xs holds .*, expected 0 to 8 \(vocab_size = 9\)"),
        (XS, TS + V, r"ts holds .*, expected 0 to .* or -1 to ignore it"),
    ],
)
def test_bad_data(xs: Any, ts: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError, IndexError), match=message):
        make().evaluate(xs, ts)


@pytest.mark.parametrize("use", [Seq2seq.evaluate, Seq2seq.predict])
def test_bad_batches(use: Any) -> None:
    for batch_size in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size is {batch_size}, expected at least 1"):
            use(make(), XS, TS, batch_size=batch_size)
    with pytest.raises(ValueError, match="xs has 4 rows and ts 5"):
        use(make(), XS[1:], TS)


def test_unknown_metric() -> None:
    with pytest.raises(ValueError, match="unknown metric 'speed'; Seq2seq has loss, accuracy, token_accuracy"):
        make().evaluate(XS, TS, metrics=("speed",))
    with pytest.raises(TypeError, match="metrics is the string 'loss'"):
        make().evaluate(XS, TS, metrics="loss")


def test_one_hot_targets_are_accepted() -> None:
    model = make()
    assert model.forward(XS, np.eye(V)[TS]) == model.forward(XS, TS)
    assert model.evaluate(XS, np.eye(V)[TS]) == model.evaluate(XS, TS)


@pytest.mark.parametrize("kind", ["plain", "everything"])
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


# --------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------


def test_options_may_be_numbers_of_numpy(tmp_path: Path) -> None:
    model = Seq2seq(np.int64(V), np.int32(D), H, dropout=np.float32(0.5), seed=np.uint8(1))  # type: ignore[arg-type]
    model.save(tmp_path / "model.safetensors")
    options = Seq2seq.load(tmp_path / "model.safetensors").options
    assert options == Seq2seq(V, D, H, dropout=0.5, seed=1).options


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_comes_back(kind: str, tmp_path: Path) -> None:
    model = make(kind)
    model.vocabulary = list("abcdefghi")
    model.target_vocabulary = ["日", "本"]
    path = tmp_path / "model.safetensors"
    model.save(path)
    loaded = Seq2seq.load(path)
    assert loaded.options == model.options
    assert (loaded.vocabulary, loaded.target_vocabulary) == (model.vocabulary, model.target_vocabulary)
    assert loaded.forward(XS, TS, training=False) == model.forward(XS, TS, training=False)
    np.testing.assert_array_equal(loaded.generate(XS, 1, 5, beam=2), model.generate(XS, 1, 5, beam=2))
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_name_may_be_as_long_as_file_systems_allow(tmp_path: Path) -> None:
    model = RNNLM(3, 2, 2, seed=0)
    for name in ("n" * 255, "名" * 85):
        model.save(tmp_path / name)
        assert RNNLM.load(tmp_path / name).options == model.options
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    make().save(path)
    before = path.read_bytes()

    def full_disk(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        make("peeky").save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def _saved(path: Path, **changes: Any) -> None:
    """A model file with some entries of its description changed."""
    make().save(path)
    tensors, description = read_tensor_file(path)
    write_tensor_file(path, tensors, {**description, **changes})


def test_files_that_are_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Seq2seq.load(path)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        Seq2seq.load(tmp_path)
    for content in (b"", b"import numpy\n" * 10, b"\x80\x04" * 100):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no safetensors file, or it is cut short"):
            Seq2seq.load(path)
    make().save(path)
    whole = path.read_bytes()
    for length in (7, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is no safetensors file, or it is cut short"):
            Seq2seq.load(path)
    safetensors.numpy.save_file({"W": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="fastlstm did not write it"):
        Seq2seq.load(path)
    for text in ("{", "[" * 100_000, "9" * 100_000):
        safetensors.numpy.save_file({"W": np.zeros(3)}, path, metadata={"fastlstm": text})
        with pytest.raises(ValueError, match="is damaged: its description is no JSON"):
            Seq2seq.load(path)
    with contextlib.suppress(ImportError):
        importlib.import_module("ml_dtypes")  # which gives numpy the first two of these dtypes
    for header in (
        {"W": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}},
        {"W": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}},
        {"W": {"dtype": "F32", "shape": [1] * 100, "data_offsets": [0, 4]}},
        {"W": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]}},
    ):
        text = json.dumps({**header, "__metadata__": {"fastlstm": "{}"}})
        path.write_bytes(len(text).to_bytes(8, "little") + text.encode() + bytes(4))
        with pytest.raises(ValueError, match="is no safetensors file, or it is cut short"):
            Seq2seq.load(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is no regular file"):
        Seq2seq.load(tmp_path / "pipe")
    for description in ("text", {"checkpoint": 1}):
        write_tensor_file(path, {}, description)
        with pytest.raises(ValueError, match="but no model"):
            Seq2seq.load(path)
    _saved(path, **{"class": "RNNLM"})
    with pytest.raises(ValueError, match="holds a RNNLM, expected a Seq2seq"):
        Seq2seq.load(path)
    _saved(path, format=2)
    with pytest.raises(ValueError, match="has format 2, this version of fastlstm reads 1"):
        Seq2seq.load(path)
    _saved(path, options={"vocab_size": V})
    with pytest.raises(ValueError, match="its options do not make a Seq2seq"):
        Seq2seq.load(path)


def test_files_whose_weights_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    make().save(path)
    tensors, description = read_tensor_file(path)
    b = tensors.pop("output.b")
    write_tensor_file(path, tensors, description)
    with pytest.raises(ValueError, match=r"lacks the weights output\.b"):
        Seq2seq.load(path)
    write_tensor_file(path, {**tensors, "output.b": b, "more": b}, description)
    with pytest.raises(ValueError, match="has weights the model does not have: more"):
        Seq2seq.load(path)
    for wrong in (b[:-1].copy(), b.astype(np.float32)):
        write_tensor_file(path, {**tensors, "output.b": wrong}, description)
        with pytest.raises(ValueError, match=r"output\.b has shape .* expected \(9,\) and float64"):
            Seq2seq.load(path)


@pytest.mark.parametrize("name", MAKERS)
def test_options_that_ask_for_more_than_the_file_holds(name: str, tmp_path: Path) -> None:
    """A small file is an error before weights of any size are drawn."""
    path = tmp_path / "model.safetensors"
    model = MAKERS[name][0]()
    model.save(path)
    tensors, description = read_tensor_file(path)
    loaded = type(model).load(path)
    assert all(np.array_equal(a, b) for a, b in zip(loaded.params, model.params, strict=True))
    harmless = {"seed", "window", "num_sampled"}
    sizes = [
        option
        for option, value in model.options.items()
        if type(value) is int and option not in harmless and not option.endswith("_id")
    ]
    assert len(sizes) >= 2
    for option in sizes:
        for size in (1000, 10**9, 10**30):
            forged = {**description, "options": {**model.options, option: size}}
            write_tensor_file(path, tensors, forged)
            tracemalloc.start()
            try:
                type(model).load(path)
                said = "nothing"
            except ValueError as error:
                said = str(error)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert "its options do not make a" in said
            assert re.search("numbers left for weights of shape|needs equal widths|needs one|expected at most", said)
            assert peak < 2**20
    MAKERS[name][0]()  # whoever makes a model is not bound by the last file


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("peeky", -1),
        ("num_layers", -1),
        ("num_layers", "2"),
        ("dropout", float("nan")),
        ("dtype", "f4,f4"),
        ("more", 1),
    ],
)
def test_options_that_no_model_has(option: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    _saved(path, options={**make().options, option: value})
    with pytest.raises(ValueError, match="is damaged: its options do not make a Seq2seq"):
        Seq2seq.load(path)


def test_set_weights_changes_nothing_when_something_does_not_fit() -> None:
    model = make()
    before = [param.copy() for param in model.params]
    wrong = {name: np.ones_like(param) for name, param in model.named_parameters()}
    wrong["output.b"] = wrong["output.b"][:-1]
    with pytest.raises(ValueError, match=r"output\.b"):
        model.set_weights(wrong, "here")
    assert all(np.array_equal(a, b) for a, b in zip(before, model.params, strict=True))


def test_the_description_is_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = make("peeky")
    model.save(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        description = json.loads(file.metadata()["fastlstm"])
    assert description["class"] == "Seq2seq"
    assert description["options"]["peeky"] is True


def test_a_model_is_on_the_host_and_says_why_it_cannot_leave() -> None:
    model = Seq2seq(5, 4, 3, seed=0)
    assert model.to("cpu") is model
    if "cuda" not in fastlstm.available_backends():
        with pytest.raises(fastlstm.BackendNotAvailable, match="backend 'cuda' cannot run here: .*driver|extension"):
            model.to("cuda")
    with pytest.raises(ValueError, match="device is 'gpu', expected 'cpu' or 'cuda'"):
        model.to("gpu")  # type: ignore[arg-type]


def test_a_precision_that_a_model_does_not_have() -> None:
    with pytest.raises(ValueError, match="precision is 'tf32', for a float32 model on 'cpu': only .* on a GPU have it"):
        Seq2seq(5, 4, 3, seed=0).to("cpu", precision="tf32")
    with pytest.raises(
        ValueError, match="precision is 'bf16', for a float64 model on 'cpu': only .* float32 arrays ha"
    ):
        Seq2seq(5, 4, 3, seed=0, dtype="float64").to("cpu", precision="bf16")
    with pytest.raises(ValueError, match="precision is 'fp8', expected 'tf32', 'bf16' or None"):
        Seq2seq(5, 4, 3, seed=0).to("cpu", precision="fp8")  # type: ignore[arg-type]
