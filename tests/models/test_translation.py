"""Pairs of sentences, padding, attention maps, BLEU, pictures of layers, 'fastlstm train translate' and '... dates'."""

from __future__ import annotations

import datetime as dt
import json
import lzma
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import error_of, interrupt_a_training, without_seconds

from fastlstm import datasets
from fastlstm.cli import main
from fastlstm.contract import IntArray
from fastlstm.datasets.bleu import bleu
from fastlstm.datasets.dates import DAYS, WRITTEN_LENGTH
from fastlstm.datasets.pairs import decode
from fastlstm.datasets.parallel import decode_target, encode_sources, find_pair_files
from fastlstm.layers import TimeAttention
from fastlstm.models import RNNLM, Model, Seq2seq, layer_graph
from fastlstm.optim import Adam

PAIRS = [
    ("Go.", "行け。"),
    ("Hi.", "こんにちは。"),
    ("Run!", "走れ！"),
    ("Who?", "誰？"),
    ("Fire!", "火事だ！"),
    ("Help!", "助けて！"),
    ("Stop!", "止まれ！"),
    ("Wait!", "待って！"),
    ("I see.", "なるほど。"),
    ("I try.", "𠮷野家でやってみる。"),  # beyond the first plane of Unicode
    ("Go on.", "進んで。"),
    ("Hello!", "やあ！"),
]
SMALL = ["--hidden-size", "12", "--wordvec-size", "8", "--batch-size", "4", "--epochs", "2"]
RUN_FILES = {
    *("model.safetensors", "checkpoint.safetensors", "history.csv", "config.json", "translations.txt", "checkpoints"),
    *("loss.png", "accuracy.png", "layers.png"),
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small file of pairs in an otherwise empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTLSTM_DATA_DIR", raising=False)
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in PAIRS), encoding="utf-8")
    return path


def real_data(name: str) -> None:
    try:
        find_pair_files(name)
    except FileNotFoundError:
        pytest.skip(f"FASTLSTM_DATA_DIR names no folder with {name}")


# --------------------------------------------------------------------------------------------
# Pairs of sentences
# --------------------------------------------------------------------------------------------


def test_characters_of_several_bytes_are_one_symbol(data: Path) -> None:
    pairs = datasets.parallel_text("pairs.tsv")
    assert pairs.vocabulary[0] == "<pad>"
    assert pairs.target_vocabulary[:3] == ["<pad>", "\t", "\n"]
    assert (pairs.start_id, pairs.end_id) == (1, 2)
    assert {*pairs.target_vocabulary} == {"<pad>", "\t", "\n", *(sign for _, target in PAIRS for sign in target)}
    assert pairs.xs.shape == (len(PAIRS), 6)
    assert pairs.ts.shape == (len(PAIRS), max(len(target) for _, target in PAIRS) + 2)
    for x, t, (source, target) in zip(pairs.xs, pairs.ts, PAIRS, strict=True):
        assert "".join(pairs.vocabulary[i] for i in x[x > 0]) == source
        assert "".join(pairs.target_vocabulary[i] for i in t[t > 0]) == f"\t{target}\n"
        assert decode_target(t, pairs.target_vocabulary, "char") == target
        assert not x[len(source) :].any()
        assert not t[len(target) + 2 :].any()
    assert list(zip(pairs.sources, pairs.targets, strict=True)) == PAIRS
    frequent = "".join(pairs.target_vocabulary[3:5])
    assert frequent == "！。"  # 6 and 4 times


def test_words_have_four_special_symbols(tmp_path: Path) -> None:
    (tmp_path / "en").write_text("i see .\ni see the cat .\n", encoding="utf-8")
    (tmp_path / "ja").write_bytes(lzma.compress("見 る 。\n私 は 猫 を 見 る 。\n".encode()))
    (tmp_path / "ja").rename(tmp_path / "ja.xz")
    pairs = datasets.parallel_text(tmp_path / "en", tmp_path / "ja", unit="word")  # .xz is found
    assert pairs.vocabulary == ["<pad>", "<unk>", "<s>", "</s>", "i", "see", ".", "the", "cat"]
    assert pairs.xs.tolist() == [[2, 4, 5, 6, 3, 0, 0], [2, 4, 5, 7, 8, 6, 3]]
    assert decode_target(pairs.ts[1], pairs.target_vocabulary, "word") == "私 は 猫 を 見 る 。"
    rare = datasets.parallel_text(tmp_path / "en", tmp_path / "ja", unit="word", min_count=2)
    assert rare.vocabulary == ["<pad>", "<unk>", "<s>", "</s>", "i", "see", "."]
    assert rare.xs[1].tolist() == [2, 4, 5, 1, 1, 6, 3]
    (tmp_path / "dev.tsv").write_text("the dog .\t犬 。\n", encoding="utf-8")
    dev = datasets.parallel_text(
        tmp_path / "dev.tsv", unit="word", vocabulary=pairs.vocabulary, target_vocabulary=pairs.target_vocabulary
    )
    assert dev.xs.tolist() == [[2, 7, 1, 6, 3]]
    assert datasets.parallel_text(tmp_path / "en", tmp_path / "ja", unit="word", limit=1).xs.shape == (1, 5)


def test_words_that_are_written_like_marks_are_words(tmp_path: Path) -> None:
    lines = ["<pad> a </s> b", "<s> a <unk>", r"\<s> a \\</s>"]
    for name in ("en", "ja"):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    pairs = datasets.parallel_text(tmp_path / "en", tmp_path / "ja", unit="word")
    words = [r"\<pad>", r"\</s>", "b", r"\<s>", r"\\<s>", r"\\\</s>"]
    assert pairs.vocabulary == pairs.target_vocabulary == ["<pad>", "<unk>", "<s>", "</s>", "a", *words]
    for ids in (pairs.xs, pairs.ts):
        assert ids.tolist() == [[2, 5, 4, 6, 7, 3], [2, 8, 4, 1, 3, 0], [2, 9, 4, 10, 3, 0]]
    assert [decode_target(row, pairs.target_vocabulary, "word") for row in pairs.ts] == lines
    # A vocabulary that has none of them, as those of older models.
    assert encode_sources(["<pad> a </s>"], pairs.vocabulary[:5], "word").tolist() == [[2, 1, 4, 1, 3]]
    with pytest.raises(TypeError, match="sentences is the string 'a b', expected a sequence of texts"):
        encode_sources("a b", pairs.vocabulary, "word")


def test_a_limit_compares_the_beginnings_of_two_files(tmp_path: Path) -> None:
    (tmp_path / "en").write_text("a\nb\nc\n")
    (tmp_path / "ja").write_text("x\ny\n")
    assert len(datasets.parallel_text(tmp_path / "en", tmp_path / "ja", limit=2).xs) == 2
    with pytest.raises(ValueError, match="en has 3 lines, .*ja has 2 of the first 3; line i"):
        datasets.parallel_text(tmp_path / "en", tmp_path / "ja", limit=3)


def test_further_columns_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "p.tsv").write_text("Go.\t行け。\tCC-BY 2.0\n", encoding="utf-8")
    pairs = datasets.parallel_text(tmp_path / "p.tsv")
    assert decode_target(pairs.ts[0], pairs.target_vocabulary, "char") == "行け。"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"caf\xe9\tx\n", "line 1: no UTF-8"),
        (b"a\tb\nno tab here\n", "line 2: 'no tab here' is no source, tab and target"),
        (b"a\tb\n\tb\n", "line 2: '.tb' is no source"),
        (b"a\tb\na\t \n", "line 2: 'a.t ' is no source"),
        (b"a\tb\n\nc\td\n", "line 2: '' is no source"),
    ],
)
def test_bad_files_of_pairs(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "p.tsv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        datasets.parallel_text(path)


def test_bad_pairs_of_files(tmp_path: Path) -> None:
    en, ja = tmp_path / "en", tmp_path / "ja"
    en.write_text("a\nb\n")
    for content, message in (
        ("x\n", "en has 2 lines, .*ja has 1; line i of one belongs to line i of the other"),
        ("x\n\n", "ja, line 2: empty, its partner is 'b'"),
        ("x\ny\tz\n", "ja, line 2: 'y.tz' has a tab"),
    ):
        ja.write_text(content)
        with pytest.raises(ValueError, match=message):
            datasets.parallel_text(en, ja)


def test_bad_arguments_of_parallel_text(data: Path) -> None:
    symbols = {"vocabulary": ["<pad>", "G"], "target_vocabulary": ["<pad>", "\t", "\n", "行"]}
    for options, message in (
        ({"unit": "byte"}, "unit is 'byte', expected 'char' or 'word'"),
        ({"limit": 0}, "limit is 0, expected at least 1"),
        ({"min_count": 2}, "min_count is for words"),
        ({"min_count": 2, "unit": "word", **symbols}, "min_count is for making a vocabulary"),
        ({"vocabulary": ["a"]}, "given together or not at all"),
        (symbols, "sentence 1: 'o' in 'Go.' is not in the vocabulary of 2 symbols"),
    ):
        with pytest.raises(ValueError, match=message):
            datasets.parallel_text("pairs.tsv", **options)


def test_missing_data_says_where_to_get_it(data: Path) -> None:
    for name, message in (
        ("jpn_eng", "jpn.txt does not exist; FASTLSTM_DATA_DIR is not set.*manythings.org/anki"),
        ("small_parallel_enja", "train.en does not exist.*github.com/odashi/small_parallel_enja"),
        ("nothing.tsv", "nothing.tsv does not exist.*SOURCE TAB TARGET"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            datasets.parallel_text(name)


def test_the_vocabularies_of_the_real_data() -> None:
    real_data("small_parallel_enja")
    pairs = datasets.parallel_text("small_parallel_enja", unit="word")
    assert (len(pairs.vocabulary), len(pairs.target_vocabulary)) == (6638, 8778)
    assert pairs.xs.shape == pairs.ts.shape == (50_000, 18)
    first = decode_target(pairs.ts[0], pairs.target_vocabulary, "word")
    assert first == "誰 が 一番 に 着 く か 私 に は 分か り ま せ ん 。"


def test_the_model_for_words_has_the_known_number_of_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    model = Seq2seq(6638, 256, 1024, target_vocab_size=8778, pad_id=0)
    assert model.summary().splitlines()[-1] == "23,437,898 parameters"


# --------------------------------------------------------------------------------------------
# Padding, one-hot, attention
# --------------------------------------------------------------------------------------------

V, K, D, H, START = 7, 9, 4, 5, 1
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "reversed": {"reverse_source": True},
    "bidirectional": {"bidirectional": True, "num_layers": 2},
    "attention": {"attention": True},
    "everything": {"bidirectional": True, "attention": True, "reverse_source": True, "peeky": True, "num_layers": 2},
}
SOURCES = [[3, 4, 2, 6], [5], [6, 2, 2], [2, 3, 4, 5, 6]]
TARGETS = [[START, 3, 2], [START, 5, 6, 4, 7, 2], [START, 2], [START, 8, 2]]


def make(kind: str, **options: Any) -> Seq2seq:
    options = {"target_vocab_size": K, "seed": 0, "dtype": "float64", "pad_id": 0, **KINDS[kind], **options}
    model = Seq2seq(V, D, H, **options)
    rng = np.random.default_rng(2)
    for param in model.params:  # large enough for everything to count
        param += 0.5 * rng.standard_normal(param.shape)
    return model


def padded(rows: list[list[int]], steps: int) -> IntArray:
    return np.array([row + [0] * (steps - len(row)) for row in rows])


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_neither_loss_nor_gradients(kind: str) -> None:
    model = make(kind)
    total, count = 0.0, 0
    sums = [np.zeros_like(grad) for grad in model.grads]
    for x, t in zip(SOURCES, TARGETS, strict=True):  # each row alone, without padding
        n = len(t) - 1
        total += model.forward(np.array([x]), np.array([t])) * n
        model.backward()
        for one, grad in zip(sums, model.grads, strict=True):
            one += grad * n
        count += n
    xs, ts = padded(SOURCES, 8), padded(TARGETS, 9)
    assert model.forward(xs, ts) == pytest.approx(total / count)
    model.backward()
    assert model.loss_count == count
    for (name, _), grad, one in zip(model.named_parameters(), model.grads, sums, strict=True):
        np.testing.assert_allclose(grad, one / count, rtol=1e-9, atol=1e-12, err_msg=name)
    assert model.evaluate(xs, ts)["loss"] == pytest.approx(total / count)
    assert not model.grads[0][0].any()  # nothing is learned about the padding itself


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing_that_is_written(kind: str, beam: int) -> None:
    model = make(kind)
    together = model.generate(padded(SOURCES, 8), START, 6, beam=beam, end_id=2)
    for x, row in zip(SOURCES, together, strict=True):
        np.testing.assert_array_equal(model.generate(np.array([x]), START, 6, beam=beam, end_id=2)[0], row)


def test_without_pad_id_every_id_is_read() -> None:
    model = make("plain", pad_id=None)
    longer = padded(SOURCES, 9)
    assert model.forward(longer, padded(TARGETS, 6)) != model.forward(longer[:, :8], padded(TARGETS, 6))


def test_a_batch_of_padding_only_has_no_loss() -> None:
    model = make("everything")
    nothing = np.zeros((2, 4), np.int64)
    assert model.forward(nothing, nothing) == 0.0
    model.backward()
    assert not any(grad.any() for grad in model.grads)


def test_pad_id_is_saved(tmp_path: Path) -> None:
    model = make("attention")
    model.save(tmp_path / "m.safetensors")
    loaded = Seq2seq.load(tmp_path / "m.safetensors")
    xs, ts = padded(SOURCES, 8), padded(TARGETS, 6)
    assert loaded.forward(xs, ts) == model.forward(xs, ts)
    with pytest.raises(ValueError, match="pad_id is 7, expected an id of both vocabularies, which have 7 and 9"):
        make("plain", pad_id=7)
    with pytest.raises(ValueError, match="pad_id is -1"):
        make("plain", pad_id=-1)


def one_hot(ids: IntArray, size: int) -> Any:
    """As Keras's example has it: padding is a row of zeros."""
    rows = np.eye(size, dtype=np.float32)[ids]
    rows[ids == 0] = 0
    return rows


@pytest.mark.parametrize("kind", ["plain", "everything"])
def test_one_hot_arrays_are_accepted(kind: str) -> None:
    model = make(kind)
    xs, ts = padded(SOURCES, 5), padded(TARGETS, 6)
    x_rows, t_rows = one_hot(xs, V), one_hot(ts, K)
    assert model.forward(x_rows, t_rows) == model.forward(xs, ts)
    assert model.evaluate(x_rows, t_rows) == model.evaluate(xs, ts)
    np.testing.assert_array_equal(model.generate(x_rows, START, 4), model.generate(xs, START, 4))
    np.testing.assert_array_equal(model.predict(x_rows, t_rows)[0, :3], model.predict(xs, ts)[0, :3])
    by_ids, by_rows = make(kind), make(kind)
    by_ids.fit(xs, ts, epochs=2, batch_size=2, verbose=0)
    by_rows.fit(x_rows, t_rows, epochs=2, batch_size=2, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(by_ids.params, by_rows.params, strict=True))


def test_what_is_not_one_hot_is_refused() -> None:
    xs, ts = padded(SOURCES, 5), padded(TARGETS, 6)
    rows = one_hot(xs, V)
    for wrong, options, message in (
        (rows[..., :-1], {}, r"xs has shape \(4, 5, 6\), expected one-hot rows of V = 7"),
        (rows + rows[::-1], {}, "its rows are not one-hot"),
        (rows * 0.5, {}, "its rows are not one-hot"),
        (-rows, {}, "its rows are not one-hot"),
        (rows, {"pad_id": None}, "xs has one-hot rows of zeros, which are padding; make the model with pad_id"),
    ):
        with pytest.raises(ValueError, match=message):
            make("plain", **options).evaluate(wrong, ts)
    with pytest.raises(ValueError, match=r"xs has shape \(4, 5, 7, 1\), expected two axes"):
        make("plain").evaluate(rows[..., None], ts)


@pytest.mark.parametrize("kind", ["attention", "everything"])
def test_attention_maps(kind: str) -> None:
    model = make(kind)
    xs, ts = padded(SOURCES, 8), padded(TARGETS, 6)
    weights = model.attention_map(xs, ts)
    assert weights.shape == (4, 5, 8)
    np.testing.assert_allclose(weights.sum(axis=-1), 1)
    for x, t, row in zip(SOURCES, TARGETS, weights, strict=True):
        assert not row[:, len(x) :].any()
        alone = model.attention_map(np.array([x]), np.array([t]))[0]
        np.testing.assert_allclose(row[: len(t) - 1, : len(x)], alone, atol=1e-12)
    with pytest.raises(ValueError, match="attention=True"):
        make("plain").attention_map(xs, ts)


def test_attention_maps_stand_in_the_order_of_the_source() -> None:
    """The encoder that reads backwards and one that gets the source reversed differ in nothing but the order."""
    backwards, forwards = make("attention", reverse_source=True), make("attention")
    xs, ts = np.array([[3, 4, 2, 6]]), np.array([[START, 3, 2]])
    np.testing.assert_array_equal(backwards.attention_map(xs, ts), forwards.attention_map(xs[:, ::-1], ts)[..., ::-1])


def test_masked_states_get_no_attention() -> None:
    rng = np.random.default_rng(0)
    hs_enc, hs_dec = rng.standard_normal((2, 4, 3)), 50 * rng.standard_normal((2, 5, 3))
    mask = np.array([[1, 0, 1, 0], [0, 0, 0, 0]], bool)
    layer = TimeAttention()
    context = layer.forward(hs_enc, hs_dec, mask)
    np.testing.assert_allclose(context[0], TimeAttention().forward(hs_enc[:1, ::2], hs_dec[:1])[0])
    np.testing.assert_allclose(context[1], np.tile(hs_enc[1].mean(axis=0), (5, 1)))  # none is valid: all alike
    dhs_enc, _ = layer.backward(rng.standard_normal((2, 5, 3)))
    assert not dhs_enc[0, 1::2].any()
    assert np.isfinite(dhs_enc).all()


# --------------------------------------------------------------------------------------------
# Learning
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True])
def test_pairs_are_learned_by_heart(bidirectional: bool, data: Path) -> None:
    pairs = datasets.parallel_text("pairs.tsv")
    sizes = len(pairs.vocabulary), 16, 32
    options: dict[str, Any] = {"target_vocab_size": len(pairs.target_vocabulary), "bidirectional": bidirectional}
    model = Seq2seq(*sizes, **options, pad_id=0, seed=0)
    model.fit(pairs.xs, pairs.ts, epochs=60, batch_size=4, optimizer=Adam(0.01), verbose=0)
    for beam in (1, 3):
        ids = model.generate(pairs.xs, pairs.start_id, pairs.ts.shape[1] - 1, beam=beam, end_id=pairs.end_id)
        assert [decode_target(row, pairs.target_vocabulary, "char") for row in ids] == [target for _, target in PAIRS]


def test_real_sentences_are_learned() -> None:
    real_data("jpn_eng")
    pairs = datasets.parallel_text("jpn_eng", limit=200)
    model = Seq2seq(len(pairs.vocabulary), 64, 64, target_vocab_size=len(pairs.target_vocabulary), pad_id=0, seed=0)
    history = model.fit(
        *(pairs.xs, pairs.ts),
        epochs=25,
        batch_size=16,
        optimizer=Adam(0.005),
        verbose=0,
        validation_split=0.2,
        metrics=("token_accuracy",),
    ).history
    assert history["token_accuracy"][-1] > 0.7
    assert history["val_token_accuracy"][-1] > history["val_token_accuracy"][0]


# --------------------------------------------------------------------------------------------
# BLEU
# --------------------------------------------------------------------------------------------


def test_bleu_by_words_and_by_characters() -> None:
    references = ["彼 は 本 を 読 む 。", "私 は 猫 が 好き だ 。"]
    assert bleu(references, references) == pytest.approx(100)
    said = ["彼 は 本 を 書 く 。", "私 は 猫 が 好き だ 。"]
    # Runs of 1 to 4 words that are right: 12 of 14, 9 of 12, 7 of 10, 5 of 8; as long as the references.
    assert bleu(said, references) == pytest.approx(100 * (12 / 14 * 9 / 12 * 7 / 10 * 5 / 8) ** 0.25)
    # Characters: 彼は本を書く。 and 私は猫が好きだ。, 13 of 15, 10 of 13, 8 of 11, 6 of 9.
    joined = [[line.replace(" ", "") for line in lines] for lines in (said, references)]
    assert bleu(*joined, unit="char") == pytest.approx(100 * (13 / 15 * 10 / 13 * 8 / 11 * 6 / 9) ** 0.25)


def test_bad_arguments_of_bleu(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="1 translations and 2 references"):
        bleu(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="0 translations and 0 references"):
        bleu([], [])
    with pytest.raises(ValueError, match="unit is 'line'"):
        bleu(["a"], ["a"], unit="line")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ImportError, match=r"BLEU needs sacrebleu; run: pip install 'fastlstm\[bleu\]'"):
        bleu(["a"], ["a"])


# --------------------------------------------------------------------------------------------
# The picture of the layers
# --------------------------------------------------------------------------------------------

PLOTTED: dict[str, Model] = {
    **{kind: make(kind) for kind in KINDS},
    "shared": Seq2seq(V, D, H, share_embedding=True, peeky=True),
    "language model": RNNLM(V, D, D, num_layers=2, tie_weights=True),
    "tanh": RNNLM(V, D, H, cell="rnn"),
}


class Written:
    """What a picture says: the texts and the places of the boxes, instead of a file."""

    def __init__(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        from matplotlib.figure import Figure
        from matplotlib.patches import FancyBboxPatch

        figures: list[Figure] = []
        monkeypatch.setattr(layer_graph, "write_picture", lambda _, figure, **__: figures.append(figure))
        model.plot("not written")
        (axes,) = figures[0].axes
        self.texts = [text.get_text() for text in axes.texts]
        self.boxes = [
            (box.get_x(), box.get_y(), box.get_x() + box.get_width(), box.get_y() + box.get_height())
            for box in axes.patches
            if isinstance(box, FancyBboxPatch)
        ]
        self.limits = axes.get_xlim()[1], axes.get_ylim()[1]


@pytest.mark.parametrize("kind", PLOTTED)
def test_the_picture_shows_every_layer_and_parameter(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = PLOTTED[kind]
    written = Written(model, monkeypatch)
    names = [name for name, _ in model.named_parameters()]
    for layer_name, layer in model.layers.items():
        assert layer_name in written.texts
        assert type(layer).__name__ in written.texts
        for name, param in zip(layer.param_names, layer.params, strict=True):
            if f"{layer_name}.{name}" in names:
                assert f"{name} ({', '.join(map(str, param.shape))})" in written.texts
            else:
                assert any(text.startswith(f"{name} of ") for text in written.texts)
    assert f"{type(model).__name__}, {model.num_parameters:,} parameters" in written.texts
    for i, (left, bottom, right, top) in enumerate(written.boxes):
        assert 0 <= left < right <= written.limits[0]
        assert 0 <= bottom < top <= written.limits[1]
        for other in written.boxes[:i]:
            assert right <= other[0] or other[2] <= left or top <= other[1] or other[3] <= bottom
    assert len(written.boxes) > len(model.layers)


def test_a_model_that_does_not_say_is_drawn_as_a_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    model = RNNLM(V, D, H)
    chain = Model.graph_edges(model)
    assert [(edge.source, edge.target) for edge in chain] == [
        ("input", "embedding"),
        ("embedding", "lstm1"),
        ("lstm1", "output"),
        ("output", "output of the model"),
    ]
    monkeypatch.setattr(RNNLM, "graph_edges", Model.graph_edges)
    assert "lstm1" in Written(model, monkeypatch).texts


def test_plot_writes_a_picture(tmp_path: Path) -> None:
    PLOTTED["everything"].plot(tmp_path / "layers.png")
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastlstm.models.layer_graph import Edge

    model = RNNLM(V, D, H)
    path = tmp_path / "layers.png"
    chain = Model.graph_edges(model)
    monkeypatch.setattr(RNNLM, "graph_edges", lambda _: [*chain, Edge("output", "embedding")])
    with pytest.raises(ValueError, match="the edges go round in a circle, for instance from"):
        model.plot(path)
    monkeypatch.setattr(RNNLM, "graph_edges", lambda _: chain[:1])
    with pytest.raises(ValueError, match="the layer lstm1 has no edge"):
        model.plot(path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"plot needs matplotlib; run: pip install 'fastlstm\[train\]'"):
        model.plot(path)
    assert not path.exists()


# --------------------------------------------------------------------------------------------
# fastlstm train translate
# --------------------------------------------------------------------------------------------


def train(*arguments: str | Path) -> int:
    return main(["train", "translate", *map(str, arguments)])


def test_training_leaves_a_run_folder(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--data", data, *SMALL, "--checkpoint-every", "1", "--out", "r") == 0
    out = capsys.readouterr().out
    assert "epoch 2/2" in out
    assert "held out:" in out
    assert "reference  やあ！" in out
    assert {path.name for path in Path("r").iterdir()} == RUN_FILES
    for name in ("loss.png", "accuracy.png", "layers.png"):
        assert Path("r", name).read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in sorted(Path("r/checkpoints").iterdir())] == [
        "epoch-001.safetensors",
        "epoch-002.safetensors",
    ]
    header, *rows = Path("r/history.csv").read_text().splitlines()
    assert header == "epoch,loss,token_accuracy,val_loss,val_token_accuracy,learning_rate,seconds"
    assert len(rows) == 2
    config = json.loads(Path("r/config.json").read_text())
    options = config["options"]
    assert (options["unit"], options["optimizer"], options["validation_split"]) == ("char", "rmsprop", 0.2)
    assert options["data"] == str(data)
    pairs = datasets.parallel_text(data)
    model = Seq2seq.load("r/model.safetensors")
    assert (model.vocabulary, model.target_vocabulary) == (pairs.vocabulary, pairs.target_vocabulary)
    ids = model.generate(pairs.xs, pairs.start_id, config["target_length"], end_id=pairs.end_id)
    said = [decode_target(row, pairs.target_vocabulary, "char") for row in ids]
    assert config["result"]["bleu"] == bleu(said[-2:], [target for _, target in PAIRS[-2:]], unit="char")
    result = model.evaluate(pairs.xs[-2:], pairs.ts[-2:])
    assert config["result"]["val_token_accuracy"] == pytest.approx(result["token_accuracy"])
    for source, target in PAIRS[-2:]:
        assert f"  {source}\n    reference  {target}\n" in Path("r/translations.txt").read_text()


def test_words_with_every_switch(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("en").write_text("".join(f"i see {a} .\n" for a in "abcdefgh"))
    Path("ja").write_text("".join(f"{a} を 見 る 。\n" for a in "abcdefgh"), encoding="utf-8")
    switches = ["--bidirectional", "--attention", "--reversed", "--layers", "2", "--dropout", "0.1", "--beam", "2"]
    assert train("--data", "en", "--target", "ja", "--unit", "word", *SMALL, *switches, "--quiet", "--out", "r") == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert "BLEU" in out
    assert not err or "no installed font has" in err
    assert {path.name for path in Path("r").iterdir()} == {*RUN_FILES, "attention.png"}
    options = Seq2seq.load("r/model.safetensors").options
    wanted = {"bidirectional": True, "attention": True, "reverse_source": True, "num_layers": 2, "dropout": 0.1}
    assert {name: options[name] for name in wanted} == wanted
    assert json.loads(Path("r/config.json").read_text())["options"]["optimizer"] == "adam"
    assert main(["generate", "r", "i see a .", "i see mice ."]) == 0
    out, err = capsys.readouterr()
    assert [line.partition("\t")[0] for line in out.splitlines()] == ["i see a .", "i see mice ."]
    assert err == "not in the vocabulary, read as <unk>: mice\n"


def test_generate_translates_characters(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other way round: what is typed has several bytes a character.
    swapped = "".join(f"{target}\t{source}\n" for source, target in PAIRS)
    Path("swapped.tsv").write_text(swapped, encoding="utf-8")
    options = ["--epochs", "40", "--hidden-size", "32", "--wordvec-size", "16", "--batch-size", "4", "--lr", "0.01"]
    assert train("--data", "swapped.tsv", *options, "--optimizer", "adam", "--quiet", "--out", "r") == 0
    capsys.readouterr()
    assert main(["generate", "r", "行け。", "こんにちは。"]) == 0
    assert capsys.readouterr().out == "行け。\tGo.\nこんにちは。\tHi.\n"
    monkeypatch.setattr("sys.stdin", iter(["助けて！\n"]))
    assert main(["generate", "r", "--beam", "3"]) == 0
    assert capsys.readouterr().out == "助けて！\tHelp!\n"
    monkeypatch.setattr("sys.stdin", iter(["助けて！\r\n", "\n", "猫。\n", "行け。"]))
    assert main(["generate", "r"]) == 2
    out, err = capsys.readouterr()
    assert out == "助けて！\tHelp!\n\n\n行け。\tGo.\n"
    assert err.startswith("fastlstm: stdin, line 3: the text, sentence 1: '猫' in '猫。' is not in the vocabulary")
    assert len(err.splitlines()) == 1
    assert "' ' is no sentence" in error_of(capsys, main(["generate", "r", " "]))
    assert "'猫' in '猫。' is not in the vocabulary" in error_of(capsys, main(["generate", "r", "猫。"]))
    Seq2seq(3, 2, 2, pad_id=0).save("r/model.safetensors")
    assert "no vocabularies with start and end" in error_of(capsys, main(["generate", "r", "行"]))
    assert "--length is for language models" in error_of(capsys, main(["generate", "r", "行", "--length", "3"]))


def test_ctrl_c_leaves_a_run_that_goes_on_with_the_same_bits(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", str(data), *SMALL, "--attention", "--dropout", "0.2", "--quiet", "--epochs", "60"]
    assert train(*options, "--out", "whole") == 0
    interrupt_a_training("translate", *options)
    capsys.readouterr()
    assert main(["generate", "part", data.read_text().split("\t")[0]]) == 0
    assert "part is not finished; this is its model " in capsys.readouterr().err
    assert train("--resume", "part") == 0
    for name in ("model.safetensors", "translations.txt"):
        assert Path("part", name).read_bytes() == Path("whole", name).read_bytes(), name
    assert without_seconds(Path("part/history.csv")) == without_seconds(Path("whole/history.csv"))
    capsys.readouterr()
    assert "part is finished" in error_of(capsys, train("--resume", "part"))
    assert "--resume goes on with the options" in error_of(capsys, train("--resume", "part", "--lr", "3"))


def test_a_loss_that_is_nan_ends_the_run(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(optimizer: Adam, params: Any, grads: Any, max_norm: float | None = None) -> None:
        params[-1][...] = np.nan

    monkeypatch.setattr(Adam, "update", broken)
    assert train("--data", data, *SMALL, "--optimizer", "adam", "--quiet", "--out", "r") == 1
    assert "the loss became nan in epoch 1, batch 2" in capsys.readouterr().err
    assert not Path("r/model.safetensors").exists()


def test_without_what_is_optional_the_run_still_finishes(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert train("--data", data, *SMALL, "--attention", "--quiet", "--out", "r") == 0
    out, err = capsys.readouterr()
    assert "sacrebleu is not installed, so there is no BLEU; run: pip install 'fastlstm[bleu]'" in err
    assert "pip install 'fastlstm[train]'" in err
    assert "BLEU" not in out
    assert {path.name for path in Path("r").iterdir()} == {name for name in RUN_FILES if not name.endswith(".png")}


def test_mistakes_leave_no_run_folder(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.tsv").write_text("")
    Path("latin.tsv").write_bytes(b"caf\xe9\tx\n")
    Path("lines.txt").write_text("no tab\n")
    for arguments, message in (
        (["--data", "nothing.tsv"], "nothing.tsv does not exist"),
        (["--data", "empty.tsv"], "empty.tsv is empty"),
        (["--data", "latin.tsv"], "latin.tsv, line 1: no UTF-8"),
        (["--data", "lines.txt"], "'no tab' is no source, tab and target"),
        (["--data", "pairs.tsv", "--target", "lines.txt"], "has 12 lines, "),
        (["--data", "pairs.tsv", "--min-count", "2"], "min_count is for words"),
        ([], "manythings.org/anki"),
    ):
        assert message in error_of(capsys, train(*arguments))
    assert not Path("runs").exists()
    for wrong in (["--unit", "byte"], ["--validation-split", "1"], ["--beam", "0"]):
        with pytest.raises(SystemExit):
            train(*wrong)
        assert wrong[0] in capsys.readouterr().err
    assert train("--data", "pairs.tsv", *SMALL, "--quiet", "--out", "r") == 0
    capsys.readouterr()
    code = main(["train", "dates", "--resume", "r"])
    assert "r is no run of the task 'dates'" in error_of(capsys, code)


def test_signs_without_a_font_are_boxes(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fastlstm.cli.plots import AttentionMap, plot_attention

    sign = "\ue000"  # for private use: no font should have it
    plot_attention(data.parent / "a.png", "title", [AttentionMap(["a", sign], ["b", "\n"], np.full((2, 2), 0.5))])
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
    assert "a.png: no installed font has" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------
# Dates
# --------------------------------------------------------------------------------------------

READERS = ("%B %d, %Y", "%b %d, %Y", "%d %B %Y", "%d %b %Y", "%A, %B %d, %Y", "%a, %d %b %Y", "%m/%d/%y", "%m/%d/%Y")


def read_date(text: str) -> dt.date:
    """By Python's own reading of dates."""
    for reader in (*READERS, "%Y-%m-%d", "%Y/%m/%d"):
        try:
            return dt.datetime.strptime(text, reader).date()
        except ValueError:
            continue
    raise AssertionError(f"{text} is no date")


def test_generated_dates_mean_what_is_written() -> None:
    pairs = datasets.dates(3000, seed=1)
    assert (pairs.xs.shape, pairs.ts.shape) == ((3000, 29), (3000, 11))
    written = [decode(x, pairs.vocabulary) for x in pairs.xs]
    for text, t in zip(written, pairs.ts, strict=True):
        assert decode(t, pairs.vocabulary) == f"_{read_date(text.strip())}"
    assert max(len(text.strip()) for text in written) == WRITTEN_LENGTH
    assert {text.isupper() for text in written if text[0].isalpha()} == {True, False}
    same, other = datasets.dates(3000, seed=1), datasets.dates(3000, seed=2)
    assert np.array_equal(pairs.xs, same.xs)
    assert not np.array_equal(pairs.xs, other.xs)
    years = {decode(t[1:5], pairs.vocabulary) for t in datasets.dates(20_000, seed=0).ts}
    assert years == {str(year) for year in range(1970, 2069)}
    assert sum(366 if year % 4 == 0 else 365 for year in range(1970, 2069)) == DAYS
    with pytest.raises(ValueError, match="n is 0, expected at least 1"):
        datasets.dates(0)


def test_dates_are_trained_read_and_resumed(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = datasets.dates(200, seed=0)
    lines = [decode(x, pairs.vocabulary) + decode(t, pairs.vocabulary) for x, t in zip(*pairs[:2], strict=True)]
    Path("dates.txt").write_text("\n".join(lines) + "\n")
    read = datasets.read_dates("dates.txt")
    assert np.array_equal(read.xs, pairs.xs)
    assert np.array_equal(read.ts, pairs.ts)
    small = ["--epochs", "2", "--hidden-size", "12", "--wordvec-size", "4", "--data", "dates.txt"]
    assert main(["train", "dates", *small, "--out", "r"]) == 0
    out = capsys.readouterr().out
    assert "TimeAttention" in out
    assert "held-out dates right after 2 epochs" in out
    names = {
        "model.safetensors",
        "checkpoint.safetensors",
        "history.csv",
        "config.json",
        "loss.png",
        "accuracy.png",
        "attention.png",
    }
    assert {path.name for path in Path("r").iterdir()} == names
    assert main(["generate", "r", "september 27, 1994"]) == 0
    assert capsys.readouterr().out.startswith("september 27, 1994 = ")
    assert "'27.9.94': the model does not know '.'" in error_of(capsys, main(["generate", "r", "27.9.94"]))
    assert "r is finished" in error_of(capsys, main(["train", "dates", "--resume", "r"]))
    assert main(["train", "dates", *small, "--no-attention", "--bidirectional", "--quiet", "--out", "b"]) == 0
    options = Seq2seq.load("b/model.safetensors").options
    assert (options["attention"], options["bidirectional"]) == (False, True)
    assert not Path("b/attention.png").exists()
    capsys.readouterr()
    Path("dates.txt").write_text(lines[0])
    code = main(["train", "dates", "--data", "dates.txt"])
    assert "has 1 lines, expected at least 10" in error_of(capsys, code)
    assert "date.txt of github.com" in error_of(capsys, main(["train", "dates", "--data", "nowhere.txt"]))
