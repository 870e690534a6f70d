"""What classifier, tagger and regressor share: cells, layers, directions, masks, and embeddings trained before."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastlstm import interop, optim
from fastlstm.models import Model, SequenceClassifier, SequenceRegressor, SequenceTagger, Word2Vec, WordVectors
from fastlstm.tensor_file import read_tensor_file

V, E, H, C = 9, 3, 4, 3
STACKED: dict[str, Any] = {"num_layers": 2, "bidirectional": True, "seed": 0, "dtype": "float64"}
RNG = np.random.default_rng(0)
LENGTHS = np.array([5, 1, 3, 4])
IDS = np.where(np.arange(5) < LENGTHS[:, None], RNG.integers(0, V, (4, 5)), -1)
TAGS = np.where(RNG.random(IDS.shape) < 0.2, -1, RNG.integers(0, C, IDS.shape))
SERIES = np.where(np.arange(5)[:, None] < LENGTHS[:, None, None], RNG.standard_normal((4, 5, E)), 7)


def loud(model: Any) -> Any:
    """With weights and biases large enough for an error of any of them to be seen."""
    rng = np.random.default_rng(3)
    for param in model.params:
        param[...] = rng.normal(0, 0.6, param.shape)
    return model


MODELS: dict[str, tuple[Any, Any, Any]] = {
    "classifier, mean": (lambda **o: SequenceClassifier(V, E, H, C, **o), IDS, np.array([0, 2, 1, 1])),
    "classifier, last": (lambda **o: SequenceClassifier(V, E, H, C, pooling="last", **o), IDS, np.array([0, 2, 1, 1])),
    "tagger": (lambda **o: SequenceTagger(V, E, H, C, **o), IDS, TAGS),
    "regressor": (lambda **o: SequenceRegressor(E, H, 2, mask_value=7, **o), SERIES, RNG.standard_normal((4, 2))),
    "regressor, steps": (
        lambda **o: SequenceRegressor(E, H, 2, mask_value=7, return_sequences=True, **o),
        SERIES,
        RNG.standard_normal((4, 5, 2)),
    ),
    "regressor, of ids": (lambda **o: SequenceRegressor(E, H, 2, vocab_size=V, **o), IDS, RNG.standard_normal((4, 2))),
}


def by_torch(model: Any, kind: str, xs: Any, ts: Any) -> tuple[float, dict[str, Any]]:
    """Loss and gradients of a module of PyTorch that has the model's weights, by the names of its state dict."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    nn, functional = torch.nn, torch.nn.functional
    state = interop.fastlstm_to_torch(model)
    cell = model.options["cell"]
    module = nn.ModuleDict()
    if "embedding.weight" in state:
        module["embedding"] = nn.Embedding(V, E)
    recurrent = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[cell]
    module[cell] = recurrent(E, H, num_layers=2, bidirectional=True, batch_first=True)
    module["output"] = nn.Linear(2 * H, state["output.bias"].numel())
    module.double().load_state_dict(state)

    read = torch.tensor(np.maximum(xs, 0)) if xs.ndim == 2 else torch.tensor(xs)
    packed = nn.utils.rnn.pack_padded_sequence(
        module["embedding"](read) if xs.ndim == 2 else read, LENGTHS, batch_first=True, enforce_sorted=False
    )
    outputs, h = module[cell](packed)
    hs, _ = nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)
    h = h[0] if cell == "lstm" else h
    counts = torch.tensor(np.arange(5) < LENGTHS[:, None])
    if kind == "classifier, mean":
        features = hs.sum(dim=1) / torch.tensor(LENGTHS)[:, None]
    elif kind in ("tagger", "regressor, steps"):
        features = hs
    else:
        features = torch.cat([h[-2], h[-1]], dim=1)
    said = module["output"](features)
    if kind == "tagger":
        targets = torch.where(counts, torch.tensor(ts), -1)
        loss = functional.cross_entropy(said.flatten(0, 1), targets.flatten(), ignore_index=-1)
    elif kind == "regressor, steps":
        loss = functional.mse_loss(said[counts], torch.tensor(ts)[counts])
    else:
        loss = (functional.mse_loss if "regressor" in kind else functional.cross_entropy)(said, torch.tensor(ts))
    loss.backward()
    return loss.item(), {name: p.grad.numpy() for name, p in module.named_parameters()}


@pytest.mark.needs_torch
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("kind", MODELS)
def test_two_layers_in_both_directions_are_those_of_torch(kind: str, cell: str) -> None:
    make, xs, ts = MODELS[kind]
    model = loud(make(cell=cell, **STACKED))
    loss = model.forward(*model.check_batch(xs, ts))
    model.backward()
    want, wanted = by_torch(model, kind, xs, ts)
    assert loss == pytest.approx(want, rel=1e-10)
    # The gradients as a state dict: those of a model whose weights are they.
    grads = copy.deepcopy(model)
    for param, grad in zip(grads.params, model.grads, strict=True):
        param[...] = grad
    got = {name: tensor.numpy() for name, tensor in interop.fastlstm_to_torch(grads).items()}
    for name, grad in wanted.items():
        if cell == "gru" or "bias_hh" not in name:  # elsewhere there is one bias
            np.testing.assert_allclose(got[name], grad, rtol=0, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("kind", MODELS)
def test_what_stands_at_padding_does_not_matter(kind: str) -> None:
    make, xs, ts = MODELS[kind]
    model = loud(make(cell="gru", **STACKED))
    cut = [row[:length] for row, length in zip(xs, LENGTHS, strict=True)]
    whole = model.predict(xs)
    np.testing.assert_array_equal(model.predict(cut), whole)
    behind = np.where(xs == (7 if xs.ndim == 3 else -1), 3, xs)
    np.testing.assert_array_equal(model.predict(behind, lengths=LENGTHS), whole)
    of_steps = ts.ndim > 1 and ts.shape[1] == 5
    for n, length in enumerate(LENGTHS):  # a row alone, without padding
        alone = model.predict(xs[n : n + 1, :length])[0]
        np.testing.assert_allclose(whole[n, :length] if of_steps else whole[n], alone, rtol=1e-12)
    if of_steps:
        np.testing.assert_array_equal(whole[1, 1:], np.full_like(whole[1, 1:], 0 if kind == "tagger" else np.nan))
        cut_ts = [row[:length] for row, length in zip(ts, LENGTHS, strict=True)]
        assert model.evaluate(cut, cut_ts) == model.evaluate(xs, ts) == model.evaluate(behind, ts, lengths=LENGTHS)
    assert model.score(xs, ts) == model.score(behind, ts, lengths=LENGTHS)


def test_a_file_without_the_options_is_one_of_before(tmp_path: Path) -> None:
    """Neither its options nor the names of its weights have changed."""
    plain = {"vocab_size", "wordvec_size", "hidden_size", "num_classes", "pooling", "dropout", "seed", "dtype"}
    for model, options, weights in (
        (SequenceClassifier(V, E, H, C), {*plain, "gate_order"}, ("embedding.W", "lstm.Wx", "output.W")),
        (
            SequenceRegressor(E, H, 1, cell="rnn"),
            {"input_size", "hidden_size", "output_size", "cell", "seed", "dtype"},
            ("rnn.Wx", "output.W"),
        ),
    ):
        model.save(tmp_path / "m")
        tensors, description = read_tensor_file(tmp_path / "m")
        assert description["options"].keys() == options
        assert {name.partition(".")[0] for name in tensors} == {name.partition(".")[0] for name in weights}


@pytest.mark.parametrize("kind", MODELS)
def test_saved_and_loaded_with_all_options(kind: str, tmp_path: Path) -> None:
    make, xs, _ = MODELS[kind]
    model = loud(make(cell="gru", dropout=0.5, **STACKED))
    model.save(tmp_path / "m")
    loaded = type(model).load(tmp_path / "m")
    assert loaded.options == model.options
    np.testing.assert_array_equal(loaded.predict(xs), model.predict(xs))
    assert "gru2" in model.layers
    assert "gru2: 2 x 3 gates x (4 x (8 + 4) + 2 x 4) = 336" in model.summary()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cell": "ltsm"}, ValueError, "cell is 'ltsm', expected 'lstm', 'gru' or 'rnn'"),
        ({"num_layers": 0}, ValueError, "num_layers is 0, expected at least 1"),
        ({"embeddings": np.zeros((V, E + 1))}, ValueError, "vectors of width 4, but the model's are 3 wide"),
        ({"embeddings": np.zeros((V - 1, E))}, ValueError, "embeddings has 8 rows, expected 9, one for each id"),
        ({"embeddings": np.full((V, E), np.nan)}, ValueError, "numbers that are not finite"),
        ({"embeddings": "vectors.txt"}, TypeError, "read by WordVectors.load_word2vec_format"),
        ({"embeddings": {}}, ValueError, "an empty mapping"),
        ({"embeddings": {"a": np.ones(E), "b": np.ones(2)}}, ValueError, "expected one width"),
        ({"embeddings": {"a": np.ones(E)}, "vocabulary": ["b"]}, ValueError, "none of the 1 words .*, such as 'b'"),
        ({"embeddings": {"a": np.ones(E)}}, ValueError, "has 1 rows, expected 9.*: vocabulary= says which words"),
        ({"vocabulary": [str(i) for i in range(V + 1)]}, ValueError, "vocabulary has 10 names, expected at most 9"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], error: type[Exception], message: str) -> None:
    for make in (SequenceClassifier, SequenceTagger):
        with pytest.raises(error, match=message):
            make(V, E, H, C, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SequenceRegressor(E, H, 1).predict(SERIES, lengths=LENGTHS), "lengths need a model with a mask_value"),
        (
            lambda: SequenceRegressor(E, H, 1, mask_value=7).predict(SERIES, lengths=LENGTHS * 0 + 5),
            r"xs\[1, 1\] holds",
        ),
        (lambda: SequenceRegressor(E, H, 1, mask_value=7, vocab_size=V), "in ids, which vocab_size is for, -1 is"),
        (lambda: SequenceRegressor(E, H, 1, mask_value=np.inf), "mask_value is inf, expected a finite number"),
        (
            lambda: SequenceRegressor(1, H, 1, mask_value=7).predict([[[1.0]], [[1.0, 2.0]]]),
            r"xs\[1\] has shape \(1, 2\)",
        ),
        (
            lambda: SequenceRegressor(E, H, 1, return_sequences=True).evaluate(SERIES, np.zeros((4, 4, 1))),
            "ts has 4 steps and xs 5",
        ),
        (
            lambda: SequenceRegressor(E, H, 1, mask_value=7, return_sequences=True).evaluate(
                np.full((2, 3, E), 7), np.zeros((2, 3, 1))
            ),
            "there are no targets to evaluate",
        ),
        (lambda: SequenceRegressor(E, H, 1, embeddings=5), "the number of embeddings is 0, expected at least 1"),
        (lambda: SequenceRegressor(E, H, E, vocab_size=V).generate(SERIES[0], 2), "outputs cannot be inputs"),
    ],
)
def test_series_that_do_not_fit(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_regressor_says_a_value_at_every_step() -> None:
    """The sum of all values so far."""
    rng = np.random.default_rng(0)
    xs = [rng.uniform(-1, 1, (length, 1)) for length in rng.integers(3, 9, 80)]
    ts = [np.cumsum(row, axis=0) for row in xs]
    model = SequenceRegressor(1, 16, 1, return_sequences=True, mask_value=-9, seed=0)
    model.fit(xs, ts, epochs=60, batch_size=16, optimizer=optim.Adam(0.02), metrics=("mae",), verbose=0)
    assert model.score(xs, ts) > 0.97
    whole = SequenceRegressor(1, 4, 1, return_sequences=True, seed=0)
    np.testing.assert_array_equal(whole.generate(xs[0], 3)[0], whole.predict(xs[0][None])[0, -1])


# --------------------------------------------------------------------------------------------
# Embeddings that were trained before
# --------------------------------------------------------------------------------------------

WORDS = ["the", "cat", "sat"]
VECTORS = np.array([[0.5, 1, 2], [-1, 0, 3], [4, 2, -2]], np.float32)


@pytest.mark.parametrize(
    "embeddings",
    [
        WordVectors(WORDS, VECTORS),
        SimpleNamespace(index_to_key=WORDS, vectors=VECTORS),  # gensim's KeyedVectors
        SimpleNamespace(wv=SimpleNamespace(index_to_key=WORDS, vectors=VECTORS)),  # gensim's Word2Vec
        dict(zip(WORDS, VECTORS, strict=True)),
    ],
)
def test_word_vectors_are_looked_up_by_word(embeddings: Any) -> None:
    vocabulary = ["<unk>", "sat", "mat", "the"]
    model = SequenceClassifier(5, 3, H, 2, embeddings=embeddings, vocabulary=vocabulary, seed=0)
    W = model.layers["embedding"].params[0]
    np.testing.assert_array_equal(W[[1, 3]], VECTORS[[2, 0]])
    unknown, drawn = W[[0, 2, 4]], SequenceClassifier(5, 3, H, 2, seed=0).layers["embedding"].params[0][[0, 2, 4]]
    assert 0.3 < unknown.std() / VECTORS[[2, 0]].std() < 3  # of the size of the vectors
    np.testing.assert_allclose(unknown / unknown[0, 0], drawn / drawn[0, 0], rtol=1e-5)
    assert model.vocabulary == vocabulary
    own = SequenceTagger(3, 3, H, 2, embeddings=embeddings)
    assert own.vocabulary == WORDS
    np.testing.assert_array_equal(own.layers["embedding"].params[0], VECTORS)


def test_vectors_of_gensim(tmp_path: Path) -> None:
    gensim = pytest.importorskip("gensim.models", reason="gensim is not installed")
    WordVectors(WORDS, VECTORS).save_word2vec_format(tmp_path / "vectors.txt")
    keyed = gensim.KeyedVectors.load_word2vec_format(str(tmp_path / "vectors.txt"))
    model = SequenceClassifier(2, 3, H, 2, embeddings=keyed, vocabulary=["sat", "cat"])
    np.testing.assert_array_equal(model.layers["embedding"].params[0], VECTORS[[2, 1]])


def test_vectors_of_a_word2vec_of_ours() -> None:
    words = Word2Vec(3, E, num_sampled=2, seed=0)
    words.vocabulary = WORDS
    regressor = SequenceRegressor(E, H, 1, embeddings=words, vocabulary=["cat", "dog"])
    assert regressor.options["vocab_size"] == 2
    np.testing.assert_array_equal(regressor.layers["embedding"].params[0][0], words.vectors[1])


def test_a_frozen_embedding_stays_and_is_saved(tmp_path: Path) -> None:
    trained, frozen = (
        SequenceClassifier(3, 3, H, 2, embeddings=VECTORS, freeze_embeddings=freeze, seed=0) for freeze in (False, True)
    )
    assert trained.num_parameters - frozen.num_parameters == VECTORS.size
    for model in (trained, frozen):
        model.fit([[0, 1], [2], [1, 2]], [0, 1, 1], epochs=2, optimizer="adamw", verbose=0)
    assert not np.array_equal(trained.layers["embedding"].params[0], VECTORS)
    np.testing.assert_array_equal(frozen.layers["embedding"].params[0], VECTORS)
    frozen.save(tmp_path / "m")
    loaded = SequenceClassifier.load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict([[0, 1, 2]]), frozen.predict([[0, 1, 2]]))
    assert dict(loaded.named_parameters()).keys() == dict(trained.named_parameters()).keys()
    loaded.fit([[0, 1], [2]], [0, 1], verbose=0)
    np.testing.assert_array_equal(loaded.layers["embedding"].params[0], VECTORS)


def test_scikit_learn_copies_a_model_with_its_vectors() -> None:
    base = pytest.importorskip("sklearn.base", reason="scikit-learn is not installed")
    vectors = WordVectors(WORDS, VECTORS)
    models: list[Model] = [
        SequenceClassifier(2, 3, H, 2, embeddings=vectors, vocabulary=["sat", "cat"], cell="gru", num_layers=2),
        SequenceTagger(3, 3, H, 2, embeddings=VECTORS, freeze_embeddings=True, bidirectional=True),
        SequenceRegressor(3, H, 2, embeddings=VECTORS, return_sequences=True, dropout=0.5),
    ]
    for model in models:
        made: Any = base.clone(model)
        W = made.layers["embedding"].params[0]
        np.testing.assert_array_equal(W, model.layers["embedding"].params[0])
        assert made.set_params(hidden_size=7).get_params()["hidden_size"] == 7
        np.testing.assert_array_equal(made.layers["embedding"].params[0], W)
