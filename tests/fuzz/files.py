"""Every kind of file that the package reads, damaged at random: one clear error, or a result.

One integer makes one example: the kind of file, and what is done to it::

    python -m tests.fuzz.files --examples 10000
    python -m tests.fuzz.files --seed 123 --examples 1

A reader may return what it likes or raise OSError or ValueError whose message names the file. Any other exception is a
fault, and so are a crash, more than ten seconds, more memory than ``ROOM`` beyond what there was, and code of a file's
that runs. Examples run in children of this process, a few hundred each, so that a crash costs no more than the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import faulthandler
import functools
import importlib.util
import json
import os
import pickle
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastlstm import tensor_file
from fastlstm.callbacks import Callback
from fastlstm.cli import rnnlm as rnnlm_task
from fastlstm.cli import run_folder
from fastlstm.datasets import Vocabulary, tokenize_texts, tokenized_text
from fastlstm.datasets.files import read_lines
from fastlstm.datasets.tables import read_series
from fastlstm.datasets.tokenized import narrowed
from fastlstm.interop import (
    book_to_fastlstm,
    export_onnx,
    fastlstm_to_book,
    fastlstm_to_theano,
    keras_to_fastlstm,
    lstm_from_onnx,
    theano_to_fastlstm,
)
from fastlstm.models import RNNLM, Seq2seq, SequenceClassifier, SequenceRegressor, Word2Vec
from fastlstm.models.word_vectors import WordVectors
from fastlstm.training.checkpoint import load_checkpoint, save_checkpoint

ROOM = 1 << 30  # bytes; the files have a few thousand
LONGEST = 10  # seconds
_TOGETHER = 250  # examples a child
_EVIL = "code-has-run"

Read = Callable[[Path], Any]
Random = np.random.Generator


class Kind(NamedTuple):
    """A kind of file: what is intact, as it is called, how it is read, and what makes a damaged one whole again."""

    content: bytes
    name: str
    read: Read
    forge: Callable[[bytes, Random], bytes] | None = None


# --------------------------------------------------------------------------------------------
# What is done to a file
# --------------------------------------------------------------------------------------------

_NUMBERS = (0, 1, -1, 127, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1)
_VALUES: tuple[Any, ...] = (
    *(None, True, "", "x", [], {}, [None], {"x": 1}, [[[]]], "\ud800", "\0", 1e308, float("nan"), float("inf"), -0.5),
    *_NUMBERS,
    10**30,
)


def truncate(content: bytes, rng: Random) -> bytes:
    return content[: rng.integers(len(content) + 1)]


def flip(content: bytes, rng: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        if changed:
            changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
    return bytes(changed)


def forge_number(content: bytes, rng: Random) -> bytes:
    """A size, wherever one may stand: 1 to 8 bytes, or digits."""
    number = int(rng.choice(np.array(_NUMBERS, object)))
    at = int(rng.integers(len(content) + 1))
    if rng.random() < 0.5:
        begin = at
        while begin < len(content) and not content[begin : begin + 1].isdigit():
            begin += 1
        end = begin
        while end < len(content) and content[end : end + 1].isdigit():
            end += 1
        return content[:begin] + str(number).encode() + content[end:]
    size = int(rng.choice([1, 2, 4, 8]))
    return content[:at] + struct.pack("<Q", number % 2**64)[:size] + content[at + size :]


def splice(content: bytes, rng: Random) -> bytes:
    """A piece is lost, repeated, or stands elsewhere."""
    a, b, c = sorted(int(k) for k in rng.integers(0, len(content) + 1, 3))
    return [content[:a] + content[b:], content[:c] + content[a:], content[:a] + content[b:c] + content[a:b]][
        rng.integers(3)
    ]


def nest(content: bytes, rng: Random) -> bytes:
    """Brackets, deeper than any stack; or bytes of no meaning."""
    at = int(rng.integers(len(content) + 1))
    piece = [b"[" * 100_000, b'{"a":' * 50_000, bytes(rng.integers(0, 256, 64, np.uint8)), b"\0" * 4096, b"\n" * 999]
    return content[:at] + piece[rng.integers(len(piece))] + content[at:]


_DAMAGE = (truncate, flip, forge_number, splice, nest)


def other_value(value: Any, rng: Random) -> Any:
    """JSON with another value somewhere."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = list(value)[rng.integers(len(value))]
        changed = dict(value)
        if rng.random() < 0.15:
            del changed[name]
        elif rng.random() < 0.1:
            changed[name + "x"] = changed.pop(name)
        else:
            changed[name] = other_value(value[name], rng)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.8:
        k = int(rng.integers(len(value)))
        return [*value[:k], other_value(value[k], rng), *value[k + 1 :]]
    return _VALUES[rng.integers(len(_VALUES))]


def forge_json(content: bytes, rng: Random) -> bytes:
    value = other_value(json.loads(content), rng)
    if rng.random() < 0.05:
        return (b"[" * 100_000) + json.dumps(value).encode()
    return json.dumps(value).encode()


def forge_tensor_file(content: bytes, rng: Random) -> bytes:
    """Another description, or other arrays, with the checksum that belongs to them, or none."""
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    metadata = header.pop("__metadata__")
    description = tensor_file._CHECKSUM.sub("}", metadata["fastlstm"])
    if rng.random() < 0.7:
        description = json.dumps(other_value(json.loads(description), rng))
    else:
        header = other_value(header, rng)
    try:
        tensors = {
            name: np.frombuffer(data[slice(*entry["data_offsets"])], {"F32": "f4", "F64": "f8"}[entry["dtype"]])
            for name, entry in header.items()
        }
        shaped = {name: array.reshape(header[name]["shape"]) for name, array in tensors.items()}
        checksum = tensor_file._checksum(shaped, description)
        description = f'{description.removesuffix("}")}, "crc32": "{checksum}"}}'
    except Exception:
        pass  # what is left is a file without a checksum
    metadata["fastlstm"] = description
    if isinstance(header, dict):
        header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


class _Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, (_EVIL,)


def forge_pickle(content: bytes, rng: Random) -> bytes:
    """What would run code, or fill the memory, as pickles can."""
    evil = pickle.dumps([_Evil(), np.zeros(3, np.float16)], protocol=int(rng.integers(0, 6)))
    bomb = b"\x80\x02]q\0" + b"(" + b"h\0" * 10 + b"e" + b"]q\x01" + b"(" + b"h\x01" * 1000 + b"e."
    long = b"\x80\x02\x8a\x04" + int(rng.choice([2**31 - 1, 2**30, 99])).to_bytes(4, "little") + b"."
    frame = b"\x80\x04\x95" + (2**62).to_bytes(8, "little") + content[2:]
    wide = b"\x80\x04\x8e" + int(rng.choice([2**40, 2**63 - 1])).to_bytes(8, "little") + b"."
    return (
        flip([evil, bomb, long, frame, wide][rng.integers(5)], rng)
        if rng.random() < 0.3
        else [evil, bomb, long, frame, wide][rng.integers(5)]
    )


# --------------------------------------------------------------------------------------------
# The files
# --------------------------------------------------------------------------------------------


class _Kept(Callback):
    """Keeps the trainer, which a checkpoint is read into."""


def make_kinds(folder: Path) -> dict[str, Kind]:
    """Intact files of every kind."""
    kinds: dict[str, Kind] = {}

    def add(name: str, path: Path, read: Read, forge: Callable[[bytes, Random], bytes] | None = None) -> None:
        kinds[name] = Kind(path.read_bytes(), path.name, read, forge)

    words = [f"w{k}" for k in range(9)]
    models = {
        "rnnlm": RNNLM(9, 4, 4, num_layers=2, tie_weights=True, seed=1),
        "seq2seq": Seq2seq(9, 4, 4, attention=True, seed=1),
        "classifier": SequenceClassifier(9, 4, 4, 3, seed=1),
        "regressor": SequenceRegressor(2, 4, 2, seed=1),
        "word2vec": Word2Vec(9, 4, num_sampled=3, seed=1),
    }
    for name, model in models.items():
        if hasattr(model, "vocabulary") and name != "regressor":
            model.vocabulary = words
        path = folder / f"{name}.safetensors"
        model.save(path)
        add(f"model, {name}", path, type(model).load, forge_tensor_file)

    rnnlm, kept = RNNLM(9, 4, 4, seed=1), _Kept()
    ids = np.arange(60) % 9
    rnnlm.fit(ids, epochs=1, time_size=4, batch_size=3, optimizer="adam", callbacks=[kept], verbose=0)
    path = folder / "checkpoint.safetensors"
    save_checkpoint(path, kept.trainer)
    add("checkpoint", path, lambda file: load_checkpoint(file, kept.trainer), forge_tensor_file)

    run = folder / "run"
    run.mkdir()
    run_folder.write_config(run, "rnnlm", options=dataclasses.asdict(rnnlm_task.Options()))

    def read_options(file: Path) -> Any:
        return run_folder.read_options(file.parent, "rnnlm", rnnlm_task.Options)

    add("config.json", run / run_folder.CONFIG, read_options, forge_json)
    with open(run / run_folder.HISTORY, "w", newline="") as file:
        csv.writer(file).writerows([["epoch", "loss", "val_loss"], [1, 0.5, 0.25], [2, 0.4, 0.2]])
    add("history.csv", run / run_folder.HISTORY, lambda file: run_folder.read_history(file.parent))

    path = folder / "vocabulary.json"
    Vocabulary(words, counts=range(9)).save(path)
    add("vocabulary", path, Vocabulary.load, forge_json)
    vectors = WordVectors(words, np.random.default_rng(1).standard_normal((9, 4)).astype(np.float32))
    for binary in (False, True):
        path = folder / f"vectors{binary}.w2v"
        vectors.save_word2vec_format(path, binary=binary)
        add(f"word2vec, {'binary' if binary else 'text'}", path, functools.partial(_vectors, binary=binary))

    text = folder / "text.txt"
    text.write_text("a b c a b\nc c a d ü\n" * 9)
    tokenize_texts(text, folder / "ids")
    for part in ("ids.npy", "vocabulary.json"):
        forge = forge_json if part.endswith("json") else None
        add(f"ids on disk, {part}", folder / "ids" / part, lambda file: _read_tokenized(file, folder / "ids"), forge)
    add("text", text, lambda file: list(read_lines(file)))
    for packing, pack in _packers():
        path = folder / f"text.txt{packing}"
        path.write_bytes(pack(text.read_bytes()))
        add(f"text{packing}", path, lambda file: list(read_lines(file)))
    path = folder / "table.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    add("table", path, lambda file: read_series(file, ["a", "b"]))

    path = folder / "book.pkl"
    fastlstm_to_book(RNNLM(9, 4, 4, num_layers=2, tie_weights=True, seed=1), path)
    add("book", path, book_to_fastlstm, forge_pickle)
    path = folder / "lstm_model.npz"
    fastlstm_to_theano(SequenceClassifier(9, 4, 4, 3, seed=1, pooling="mean", gate_order="ifog"), path)
    add("theano", path, theano_to_fastlstm)
    if importlib.util.find_spec("h5py"):
        add("keras", Path(__file__).parents[1] / "interop" / "data" / "bidirectional.keras", keras_to_fastlstm)
    if importlib.util.find_spec("onnx"):
        (path,) = export_onnx(RNNLM(9, 4, 4, seed=1), folder / "lm.onnx")
        add("onnx", path, lstm_from_onnx)
    return kinds


def _packers() -> list[tuple[str, Callable[[bytes], bytes]]]:
    import bz2
    import gzip
    import lzma

    return [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)]


def _vectors(path: Path, binary: bool) -> None:
    vectors = WordVectors.load_word2vec_format(path, binary=binary)
    vectors.most_similar(vectors.vocabulary[0], topn=2)


def _read_tokenized(path: Path, intact: Path) -> None:
    for part in intact.iterdir():
        if part.name != path.name:
            (path.parent / part.name).write_bytes(part.read_bytes())
    text = tokenized_text(path.parent)
    with contextlib.suppress(ValueError):  # of the text, once it is read, no file's name is known
        narrowed(text, min_count=1, max_size=4)


# --------------------------------------------------------------------------------------------
# One example
# --------------------------------------------------------------------------------------------


def damaged(kind: Kind, seed: int, rng: Random) -> tuple[bytes, bool]:
    """The example's file, and whether it was made to be whole. The lengths of truncated ones come one by one."""
    if kind.forge is not None and rng.random() < 0.4:
        return kind.forge(kind.content, rng), True
    if seed % 5 == 0:
        return kind.content[: seed // 5 % (len(kind.content) + 1)], False
    content = _DAMAGE[rng.integers(len(_DAMAGE))](kind.content, rng)
    return content if rng.random() < 0.8 else _DAMAGE[rng.integers(len(_DAMAGE))](content, rng), False


def run_example(seed: int, kinds: dict[str, Kind], folder: Path) -> tuple[str, str | None]:
    """The kind, and what is wrong with how it was read."""
    rng = np.random.default_rng(seed)
    title = list(kinds)[rng.integers(len(kinds))]
    kind = kinds[title]
    path = folder / kind.name
    content, is_forged = damaged(kind, seed, rng)
    path.write_bytes(content)
    try:
        kind.read(path)
        if kind.forge is forge_tensor_file and not is_forged and not _same(path, kind.content):
            return title, "it was read although its content is not what was written"
    except (ValueError, OSError) as error:
        if type(error) is UnicodeDecodeError or str(folder) not in str(error):
            return title, f"the error does not name the file: {type(error).__name__}: {error!s:.300}"
        if len(str(error)) > 2000:
            return title, f"the error has {len(str(error))} letters: {error!s:.300}"
    except Exception:
        return title, traceback.format_exc(limit=-4)
    if (folder / _EVIL).exists():
        return title, "code in the file has run"
    return title, None


def _same(path: Path, content: bytes) -> bool:
    """Whether a tensor file says what one of this content says."""
    tensors, description = tensor_file.read_tensor_file(path)
    path.write_bytes(content)
    others, other = tensor_file.read_tensor_file(path)
    return description == other and all(
        name in tensors and np.array_equal(tensors[name], array, equal_nan=True) for name, array in others.items()
    )


def _run_child(first: int, last: int, kinds: dict[str, Kind], results: int) -> None:
    """Run examples in this forked process; write a line of JSON for each."""
    os.environ["FASTLSTM_DATA_DIR"] = os.devnull
    warnings.simplefilter("ignore")
    faulthandler.disable()
    if sys.platform == "linux":
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    with tempfile.TemporaryDirectory() as folder, open(results, "w") as out, contextlib.redirect_stdout(sys.stderr):
        os.chdir(folder)  # what code in a file would make is found here
        for seed in range(first, last):
            signal.alarm(LONGEST)  # its default action ends the process
            title, fault = run_example(seed, kinds, Path(folder))
            signal.alarm(0)
            print(json.dumps([seed, title, fault]), file=out, flush=True)


def run_examples(first: int, count: int, kinds: dict[str, Kind]) -> tuple[dict[str, int], list[tuple[int, str, str]]]:
    """How many examples each kind had, and the faults: seed, kind and what was wrong."""
    counts: dict[str, int] = dict.fromkeys(kinds, 0)
    faults = []
    seed, end = first, first + count
    while seed < end:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(reading)
                _run_child(seed, min(seed + _TOGETHER, end), kinds, writing)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(writing)
        with open(reading) as lines:
            for line in lines:
                done, title, fault = json.loads(line)
                counts[title] += 1
                seed = done + 1
                if fault is not None:
                    faults.append((done, title, fault))
        _, status = os.waitpid(child, 0)
        if status:
            how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {status >> 8}"
            why = f"no answer after {LONGEST} s" if os.WIFSIGNALED(status) and status & 127 == signal.SIGALRM else how
            faults.append((seed, "?", f"the process ended: {why}"))
            seed += 1
    return counts, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first example")
    parser.add_argument("--failures", type=int, default=10, help="show so many")
    args = parser.parse_args()
    since = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        kinds = make_kinds(Path(folder))
        counts, faults = run_examples(args.seed, args.examples, kinds)
    for seed, title, fault in faults[: args.failures]:
        print(f"--seed {seed}, {title}: {fault}\n")
    width = max(map(len, counts))
    for title, count in counts.items():
        print(f"{title:{width}} {count:7,}")
    print(f"{args.examples:,} files, {len(faults)} faults, {time.perf_counter() - since:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
