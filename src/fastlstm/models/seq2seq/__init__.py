"""Sequence to sequence: an encoder LSTM reads the source, a decoder LSTM writes the target."""

from fastlstm.models.seq2seq.model import Decoder, Encoded, Encoder, Seq2seq

__all__ = ["Decoder", "Encoded", "Encoder", "Seq2seq"]
