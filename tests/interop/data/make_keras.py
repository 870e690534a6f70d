"""Writes bidirectional.keras and its outputs: KERAS_BACKEND=torch python make_keras.py. Needs Keras 3."""

import zipfile
from pathlib import Path

import keras
import numpy as np

HERE = Path(__file__).parent


def main() -> None:
    """An embedding, four recurrent layers and a dense one, packed."""
    keras.utils.set_random_seed(0)
    loud = {"bias_initializer": "glorot_normal"}
    model = keras.Sequential(
        [
            keras.Input((None,)),
            keras.layers.Embedding(11, 4, embeddings_initializer="glorot_normal"),
            keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True, unit_forget_bias=False, **loud)),
            keras.layers.GRU(3, return_sequences=True, reset_after=False, **loud),
            keras.layers.GRU(3, return_sequences=True, **loud),
            keras.layers.LSTM(3, go_backwards=True, use_bias=False),
            keras.layers.Dense(2, **loud),
        ]
    )
    ids = np.random.default_rng(0).integers(0, 11, (3, 5))
    model.save(HERE / "unpacked.keras")
    with (
        zipfile.ZipFile(HERE / "unpacked.keras") as unpacked,
        zipfile.ZipFile(HERE / "bidirectional.keras", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed,
    ):
        for name in unpacked.namelist():
            packed.writestr(name, unpacked.read(name))
    (HERE / "unpacked.keras").unlink()
    np.savez_compressed(HERE / "bidirectional.npz", ids=ids, outputs=model.predict(ids, verbose=0))


if __name__ == "__main__":
    main()
