"""Data sets as arrays of ids.

Files are looked for where their path says and below the folder that the environment variable FASTLSTM_DATA_DIR names.
"""

from fastlstm.datasets.addition import addition, read_addition
from fastlstm.datasets.dates import dates, read_dates
from fastlstm.datasets.download import fetch
from fastlstm.datasets.labelled import LabelledText, encode_texts, labelled_text, labelled_texts
from fastlstm.datasets.padding import pad_sequences
from fastlstm.datasets.pairs import SequencePairs, hold_out
from fastlstm.datasets.parallel import ParallelText, parallel_text, parallel_texts
from fastlstm.datasets.sine import SeriesPieces, sine
from fastlstm.datasets.tables import read_columns, read_series
from fastlstm.datasets.text import Text, plain_text, plain_texts, ptb
from fastlstm.datasets.tokenized import TokenizedText, tokenize_texts, tokenized_text
from fastlstm.datasets.vocabulary import Vocabulary
from fastlstm.datasets.windows import Scaling, Windows, windows
from fastlstm.datasets.word_judgements import questions_words, wordsim353
from fastlstm.datasets.words import Words, count_words, read_words

__all__ = [
    "LabelledText",
    "ParallelText",
    "Scaling",
    "SequencePairs",
    "SeriesPieces",
    "Text",
    "TokenizedText",
    "Vocabulary",
    "Windows",
    "Words",
    "addition",
    "count_words",
    "dates",
    "encode_texts",
    "fetch",
    "hold_out",
    "labelled_text",
    "labelled_texts",
    "pad_sequences",
    "parallel_text",
    "parallel_texts",
    "plain_text",
    "plain_texts",
    "ptb",
    "questions_words",
    "read_addition",
    "read_columns",
    "read_dates",
    "read_series",
    "read_words",
    "sine",
    "tokenize_texts",
    "tokenized_text",
    "windows",
    "wordsim353",
]
