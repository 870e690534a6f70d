"""Dropout: csrc/cpu/dropout/dropout.cc."""

from fastlstm._cpu import dropout_mask

__all__ = ["dropout_mask"]
