"""The same work as Keras users have it done, as a graph. Import it only where Keras and TensorFlow are installed."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fastlstm.contract import Array


class LSTM:
    """Forward and backward of keras.layers.LSTM over xs (N, T, D), with dhs (N, T, H)."""

    def __init__(self, xs: Array, Wx: Array, Wh: Array, b: Array, dhs: Array) -> None:
        layer = keras.layers.LSTM(Wh.shape[0], return_sequences=True)
        layer.build(xs.shape)
        layer.set_weights([Wx, Wh, b])  # gates in our order
        self._xs, self._dhs = tf.constant(xs), tf.constant(dhs)

        @tf.function  # type: ignore[untyped-decorator]
        def step(xs: Any, dhs: Any) -> Any:
            weights = [weight.value for weight in layer.trainable_weights]
            with tf.GradientTape() as tape:
                tape.watch(xs)
                hs = layer(xs)
            return hs, tape.gradient(hs, [xs, *weights], output_gradients=dhs)

        self._step = step

    def __call__(self) -> Any:
        return self._step(self._xs, self._dhs)

    def results(self) -> dict[str, Array]:
        hs, grads = self()
        names = ("dxs", "dWx", "dWh", "db")
        return {"hs": np.asarray(hs), **{name: np.asarray(grad) for name, grad in zip(names, grads, strict=True)}}
