"""Files of earlier versions: models that load, and trainings that go on as if nothing had happened since.

``tests/data/NAME.checkpoint`` was written in the middle of an epoch, ``NAME.model`` at the end of the same training.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import V, ids, padded

from fastlstm.callbacks import BackupAndRestore, EarlyStopping, ReduceLROnPlateau
from fastlstm.contract import TOLERANCE
from fastlstm.models import RNNLM, Model, Seq2seq, SequenceClassifier, Word2Vec
from fastlstm.tensor_file import read_tensor_file
from fastlstm.training import History

FILES = Path(__file__).parents[1] / "data"
Training = tuple[Model, Callable[..., History]]


def rnnlm() -> Training:
    model = RNNLM(V, 3, 3, num_layers=2, tie_weights=True, dropout=0.2, seed=1, dtype="float64")

    def fit(**options: Any) -> History:
        metrics = ("perplexity", "accuracy")
        return model.fit(
            ids(50),
            epochs=3,
            time_size=4,
            batch_size=3,
            max_grad=0.5,
            validation_data=ids(20),
            metrics=metrics,
            **options,
        )

    return model, fit


def classifier() -> Training:
    model = SequenceClassifier(V, 3, 3, 2, dropout=0.2, seed=1, dtype="float64")

    def fit(**options: Any) -> History:
        data = padded(40, 5, -1), ids(40) % 2
        metrics, split = ("error",), 0.1
        return model.fit(
            *data, epochs=3, batch_size=5, bucket_by_length=True, validation_split=split, metrics=metrics, **options
        )

    return model, fit


def seq2seq() -> Training:
    model = Seq2seq(V, 2, 2, pad_id=0, attention=True, seed=1, dtype="float64")

    def fit(**options: Any) -> History:
        data = padded(40, 5, 0), padded(40, 4, 0)
        return model.fit(*data, epochs=3, batch_size=5, validation_split=0.1, metrics=("accuracy",), **options)

    return model, fit


def word2vec() -> Training:
    model = Word2Vec(V, 3, loss="negative_sampling", num_sampled=2, window=2, seed=1, dtype="float64")

    def fit(**options: Any) -> History:
        return model.fit(ids(200), epochs=3, batch_size=64, subsample=0.1, validation_data=ids(30), **options)

    return model, fit


TRAININGS = {make.__name__: make for make in (rnnlm, classifier, seq2seq, word2vec)}


def callbacks(checkpoint: Path) -> list[Any]:
    return [
        EarlyStopping(patience=5, restore_best_weights=True),
        ReduceLROnPlateau(patience=2),
        BackupAndRestore(checkpoint, delete_checkpoint=False),
    ]


@pytest.mark.parametrize("name", TRAININGS)
def test_an_old_training_goes_on_to_its_old_end(name: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copy(FILES / f"{name}.checkpoint", checkpoint)
    _, before = read_tensor_file(checkpoint)
    assert (before["epoch"], before["batch"]) == (1, 2)
    model, fit = TRAININGS[name]()
    history = fit(verbose=0, callbacks=callbacks(checkpoint)).history
    wanted = type(model).load(FILES / f"{name}.model")
    for (param_name, got), (_, want) in zip(model.named_parameters(), wanted.named_parameters(), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE["float64"], err_msg=param_name)
    assert {metric: values[:1] for metric, values in history.items()} == before["history"]["history"]
    _, after = read_tensor_file(checkpoint)
    assert after.keys() == before.keys() | {"model"}  # old ones said nothing of it
    assert after["training"] == before["training"]


def test_an_old_checkpoint_is_no_model_but_of_a_training() -> None:
    with pytest.raises(ValueError, match=r"rnnlm\.checkpoint is a .* but no model: .*BackupAndRestore"):
        RNNLM.load(FILES / "rnnlm.checkpoint")


@pytest.mark.parametrize("name", TRAININGS)
def test_an_old_model_is_saved_as_it_was(name: str, tmp_path: Path) -> None:
    path = FILES / f"{name}.model"
    model, _ = TRAININGS[name]()
    type(model).load(path).save(tmp_path / "again")
    (got, said), (want, says) = read_tensor_file(tmp_path / "again"), read_tensor_file(path)
    assert said == says
    assert got.keys() == want.keys()
    for param_name, array in want.items():
        np.testing.assert_array_equal(got[param_name], array, err_msg=param_name)
