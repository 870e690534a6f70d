"""Sequence to sequence: an encoder LSTM reads the source, a decoder LSTM writes the target."""

from fastlstm.models.seq2seq.decoder import Decoder
from fastlstm.models.seq2seq.encoder import Encoded, Encoder
from fastlstm.models.seq2seq.model import Seq2seq

__all__ = ["Decoder", "Encoded", "Encoder", "Seq2seq"]
