"""Data sets as arrays of ids.

Files are looked for where their path says and below the folder that the environment variable FASTLSTM_DATA_DIR names.
"""

from fastlstm.datasets.addition import addition, read_addition
from fastlstm.datasets.pairs import SequencePairs, hold_out
from fastlstm.datasets.text import Text, plain_text, ptb

__all__ = ["SequencePairs", "Text", "addition", "hold_out", "plain_text", "ptb", "read_addition"]
