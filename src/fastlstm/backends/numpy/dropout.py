"""The definition of dropout's masks: draw j of `contract.SamplingFamily` for element j."""

from __future__ import annotations

from fastlstm.backends.numpy.sampling import uniforms
from fastlstm.contract import FloatArray


def dropout_mask(xs: FloatArray, *, ratio: float, seed: int) -> FloatArray:
    stays = uniforms(seed, 0, xs.size) >= ratio
    mask: FloatArray = (stays / (1.0 - ratio)).astype(xs.dtype).reshape(xs.shape)
    return mask
