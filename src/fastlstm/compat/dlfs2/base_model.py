"""``common.base_model``: a model that saves its parameters as the book does."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

from fastlstm.array_pickle import read_params
from fastlstm.compat.dlfs2.arrays import to_cpu
from fastlstm.contract import FloatArray
from fastlstm.ops.device import device_of, to_device


class BaseModel:
    """Base of the book's models: ``params`` and ``grads`` are set by the subclass."""

    def __init__(self) -> None:
        self.params: list[FloatArray] = []
        self.grads: list[FloatArray] = []

    def forward(self, *args: Any) -> Any:
        raise NotImplementedError

    def backward(self, *args: Any) -> Any:
        raise NotImplementedError

    def save_params(self, file_name: str | None = None) -> None:
        """Write the parameters as a pickled list of float16 arrays, "ClassName.pkl" unless named."""
        params = [to_cpu(param.astype(np.float16)) for param in self.params]
        with open(file_name or f"{type(self).__name__}.pkl", "wb") as file:
            pickle.dump(params, file)

    def load_params(self, file_name: str | None = None) -> None:
        """Read what ``save_params`` wrote, here or with the book's code. Nothing changes unless all of it fits.

        Raises
        ------
        OSError
            The file cannot be read.
        ValueError
            It is no list of arrays, or they do not fit the model.
        """
        path = file_name or f"{type(self).__name__}.pkl"
        params = read_params(path)
        shapes, wanted = [param.shape for param in params], [param.shape for param in self.params]
        if shapes != wanted:
            raise ValueError(f"{path} holds arrays of shapes {shapes}, {type(self).__name__} has {wanted}")
        for param, value in zip(self.params, params, strict=True):
            param[...] = to_device(value.astype(param.dtype), device_of(param))
