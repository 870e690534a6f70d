"""What a training leaves when it is killed, when the disk is full; and the event files of TensorBoard."""

from __future__ import annotations

import errno
import itertools
import os
import random
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import callbacks, datasets, interop
from fastlstm.models import SequenceRegressor
from fastlstm.tensor_file import make_place, read_tensor_file, write_atomically, write_tensor_file
from fastlstm.training import History
from fastlstm.training.event_file import EventWriter, crc32c, masked_crc32c, record, scalar_event

# A training in a process of its own: FOLDER, how often to save, the largest file that may be written (0: any).
SCRIPT = """
import resource, sys
from fastlstm import callbacks, datasets
from fastlstm.models import SequenceClassifier

folder, save_freq, file_size = sys.argv[1:]
if int(file_size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_size), resource.RLIM_INFINITY))
if save_freq != "epoch":
    save_freq = int(save_freq)
xs = [[i % 7, i % 5, i % 3][: 1 + i % 3] for i in range(400)]
ts = [i % 2 for i in range(400)]
model = SequenceClassifier(500, 64, 64, 2, dropout=0.5, seed=0)
model.fit(
    xs, ts, epochs=6, batch_size=16, bucket_by_length=True, validation_split=0.1, metrics=("error",), verbose=0,
    callbacks=[
        callbacks.EarlyStopping("val_error", patience=9, restore_best_weights=True),
        callbacks.CSVLogger(f"{folder}/history.csv"),
        callbacks.BackupAndRestore(f"{folder}/backup", save_freq, delete_checkpoint=False),
    ],
)
model.save(f"{folder}/model")
"""


def start(folder: Path, save_freq: str, file_size: int = 0) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", SCRIPT, str(folder), save_freq, str(file_size)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def finish(folder: Path, save_freq: str) -> dict[str, bytes]:
    process = start(folder, save_freq)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert {path.name for path in folder.iterdir()} == {"backup", "history.csv", "model"}
    return {name: (folder / name).read_bytes() for name in ("model", "history.csv")}


@pytest.mark.parametrize("save_freq", ["epoch", "1"])
def test_a_killed_training_goes_on_with_the_same_bits(save_freq: str, tmp_path: Path) -> None:
    since = time.monotonic()
    wanted = finish(tmp_path / "whole", save_freq)
    seconds = time.monotonic() - since
    rng = random.Random(save_freq)
    folder = tmp_path / "killed"
    killed = 0
    for _ in range(8):
        process = start(folder, save_freq)
        # Wait for the training to begin, then for any moment of it: within a batch, a checkpoint, between epochs.
        before = (folder / "backup").stat().st_mtime_ns if (folder / "backup").exists() else 0
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if (folder / "backup").exists() and (folder / "backup").stat().st_mtime_ns != before:
                break
            time.sleep(0.001)
        time.sleep(rng.uniform(0, seconds / 20))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        if (folder / "model").exists():
            break
    assert killed >= 1
    assert finish(folder, save_freq) == wanted


# Writes PATH in a process of its own, which says when all but the move is done, and then waits for a line.
SLOW_WRITER = """
import os, sys
from fastlstm.tensor_file import write_atomically

fsync = os.fsync

def wait(descriptor):
    fsync(descriptor)
    print(flush=True)
    sys.stdin.readline()

os.fsync = wait
write_atomically(sys.argv[1], b"slow")
"""


def start_slow_writer(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW_WRITER, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """Not what another process writes at this moment, and not what belongs to another file."""
    path = tmp_path / "history.csv"
    others = {".history.csv.old.tmp", f".history.csv.{os.getpid()}.tmp", f".other.csv.{'0' * 16}.tmp"}
    for name in others:
        (tmp_path / name).write_bytes(b"half")
    killed = start_slow_writer(path)
    killed.kill()
    killed.communicate()
    left = names_in(tmp_path) - others
    assert len(left) == 1
    living = start_slow_writer(path)
    being_written = names_in(tmp_path) - others
    assert len(being_written) == 1
    assert being_written != left
    write_atomically(path, b"whole")
    assert names_in(tmp_path) == {path.name, *others, *being_written}
    assert path.read_bytes() == b"whole"
    living.communicate("\n", timeout=60)
    assert living.returncode == 0
    assert names_in(tmp_path) == {path.name, *others}
    assert path.read_bytes() == b"slow"


# Saves PATH from four threads at once, COUNT times each; sizes differ, and so do the bytes.
CROWD = """
import sys, threading
from fastlstm.tensor_file import write_atomically

errors = []

def save(number):
    try:
        for i in range(int(sys.argv[2])):
            write_atomically(sys.argv[1], bytes([number]) * (1000 * number + i))
    except BaseException as error:
        errors.append(error)

threads = [threading.Thread(target=save, args=(number,)) for number in range(1, 5)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(repr(errors) if errors else 0)
"""


def start_crowd(path: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CROWD, str(path), str(count)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_threads_and_processes_write_one_path(tmp_path: Path) -> None:
    path = tmp_path / "model"
    write_atomically(path, b"\1" * 1000)
    crowds = [start_crowd(path, 50) for _ in range(2)]
    while any(crowd.poll() is None for crowd in crowds):
        content = path.read_bytes()
        assert content == content[:1] * len(content)
        assert 0 <= len(content) - 1000 * content[0] < 50
    assert [crowd.communicate()[1] for crowd in crowds] == ["", ""]
    assert names_in(tmp_path) == {"model"}


def test_writers_killed_at_any_moment_leave_nothing_for_long(tmp_path: Path) -> None:
    path = tmp_path / "model"
    rng = random.Random(0)
    for _ in range(5):
        path.unlink(missing_ok=True)
        crowd = start_crowd(path, 10**6)
        while not path.exists():
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        crowd.kill()
        crowd.communicate()
        write_atomically(path, b"whole")
        assert names_in(tmp_path) == {"model"}


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o666])
def test_permissions_are_kept(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    before = os.umask(0o027)
    try:
        write_atomically(path, b"first")
        assert path.stat().st_mode & 0o777 == 0o640
        path.chmod(mode)
        write_atomically(path, b"second")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"second"
    assert path.stat().st_mode & 0o777 == mode


def test_a_full_disk_loses_no_checkpoint(tmp_path: Path) -> None:
    """No file may become larger than the first epochs' checkpoint; EarlyStopping's weights make the second larger."""
    wanted = finish(tmp_path / "whole", "epoch")
    full = (tmp_path / "whole" / "backup").stat().st_size
    folder = tmp_path / "full"
    process = start(folder, "20", full - 1000)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err.splitlines()[-1] == f"OSError: [Errno {errno.EFBIG}] File too large: '{folder / 'backup'}'"
    assert {path.name for path in folder.iterdir()} == {"backup", "history.csv"}
    _, description = read_tensor_file(folder / "backup")
    assert (description["epoch"], description["batch"]) == (0, 20)
    assert finish(folder, "20")["model"] == wanted["model"]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_an_error_while_writing_leaves_the_old_file(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def no_space(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if step == "write":

        class Full:
            def __init__(self, *_: Any, **__: Any) -> None: ...

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None: ...

            write = no_space

        monkeypatch.setattr("fastlstm.tensor_file.open", Full, raising=False)
    else:
        monkeypatch.setattr(f"os.{step}", no_space)
    with pytest.raises(OSError, match=r"No space left on device: '.*/file'"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_link_leads_to_the_file_that_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    link = tmp_path / "latest"
    link.symlink_to(Path("run", "file"))
    for content in (b"first", b"second"):
        write_atomically(link, content)
        assert (folder / "file").read_bytes() == content
    assert link.is_symlink()
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_only_files_are_overwritten(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(OSError, match=r"not a regular file: '.*/fifo'"):
        write_atomically(fifo, b"")
    with pytest.raises(IsADirectoryError, match=f"'{tmp_path}'"):
        write_atomically(tmp_path, b"")
    with pytest.raises(FileNotFoundError, match=r"'.*/nowhere/file'$"):
        write_atomically(tmp_path / "nowhere" / "file", b"")
    assert names_in(tmp_path) == {"fifo"}


@pytest.mark.parametrize("name", ["vocabulary", "book", "theano", "keras", "onnx"])
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    """By what is read whole: models too, see ``tests/models/test_models.py``. Texts may be pipes."""
    if name in ("keras", "onnx"):
        pytest.importorskip({"keras": "h5py", "onnx": "onnx"}[name])
    read: Any = {
        "vocabulary": datasets.Vocabulary.load,
        "book": interop.book_to_fastlstm,
        "theano": interop.theano_to_fastlstm,
        "keras": interop.keras_to_fastlstm,
        "onnx": interop.lstm_from_onnx,
    }[name]
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(b"text",))  # so that a test that fails ends
    writer.start()
    try:
        with pytest.raises(ValueError, match="pipe is no regular file, expected "):
            read(fifo)
    finally:
        descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        writer.join()
        os.close(descriptor)
    for place, error in ((tmp_path, IsADirectoryError), (tmp_path / "nowhere", FileNotFoundError)):
        with pytest.raises(error, match=re.escape(str(place))):
            read(place)


def test_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    """Whatever the order in which safetensors writes its metadata, which is another every time."""
    tensors: dict[str, Any] = {
        "b": np.arange(3, dtype=np.float32),
        "a": np.ones((2, 1)),
        "\N{GREEK SMALL LETTER ALPHA}": np.zeros(0),
    }
    for _ in range(20):
        write_tensor_file(tmp_path / "file", tensors, {"name": "\N{GREEK SMALL LETTER ALPHA}"})
        first = (
            (tmp_path / "first") if (tmp_path / "first").exists() else (tmp_path / "file").rename(tmp_path / "first")
        )
        write_tensor_file(tmp_path / "file", tensors, {"name": "\N{GREEK SMALL LETTER ALPHA}"})
        assert (tmp_path / "file").read_bytes() == first.read_bytes()
    read, description = read_tensor_file(tmp_path / "first")
    assert description == {"name": "\N{GREEK SMALL LETTER ALPHA}"}
    for name, array in tensors.items():
        np.testing.assert_array_equal(read[name], array)


def test_a_place_that_cannot_be_written_is_known_before(tmp_path: Path) -> None:
    make_place(tmp_path / "new" / "folder" / "file")
    assert names_in(tmp_path / "new") == {"folder"}
    assert not names_in(tmp_path / "new" / "folder")
    (tmp_path / "file").write_bytes(b"old")
    make_place(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"old"
    with pytest.raises(OSError, match=f"'{tmp_path}/file"):
        make_place(tmp_path / "file" / "below")
    with pytest.raises(IsADirectoryError, match="not a regular file"):
        make_place(tmp_path / "new")
    with pytest.raises(OSError, match=r"File name too long: '.*x'"):
        make_place(tmp_path / ("x" * 256))


# --------------------------------------------------------------------------------------------
# Checkpoints by batches
# --------------------------------------------------------------------------------------------

PIECES = datasets.sine(50)


def fit(*used: callbacks.Callback, **options: Any) -> History:
    model = SequenceRegressor(1, 4, 1, seed=0)
    return model.fit(*PIECES, **{"epochs": 3, "batch_size": 10, "verbose": 0, "callbacks": used, **options})


def test_a_checkpoint_every_so_many_batches(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    seen = []

    class Watch(callbacks.BackupAndRestore):
        def on_train_batch_end(self, batch: int, logs: Mapping[str, float]) -> None:
            before = backup.exists() and backup.stat().st_mtime_ns
            super().on_train_batch_end(batch, logs)
            if backup.exists() and backup.stat().st_mtime_ns != before:
                _, description = read_tensor_file(backup)
                seen.append((description["epoch"], description["batch"]))

    fit(Watch(backup, save_freq=4))
    assert seen == [(0, 4), (1, 3), (2, 2)]
    assert not backup.exists()


def test_a_loss_that_is_nan_is_no_checkpoint(tmp_path: Path) -> None:
    def break_weights(batch: int) -> None:
        if batch == 3:
            guard.model.params[0][...] = np.nan

    guard = callbacks.TerminateOnNaN()
    backup = callbacks.BackupAndRestore(tmp_path / "backup", save_freq=1, delete_checkpoint=False)
    fit(callbacks.LambdaCallback(on_train_batch_begin=break_weights), guard, backup)
    _, description = read_tensor_file(tmp_path / "backup")
    assert (description["epoch"], description["batch"]) == (0, 3)


# --------------------------------------------------------------------------------------------
# TensorBoard
# --------------------------------------------------------------------------------------------


def test_crc32c_gives_the_published_values() -> None:
    """RFC 3720, B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes([255] * 32)) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(bytes(range(31, -1, -1))) == 0x113FDB5C
    assert crc32c(b"123456789") == 0xE3069283


def records(path: Path) -> Iterator[bytes]:
    """The data of a file of TFRecords, their checks proven."""
    content = path.read_bytes()
    while content:
        (length,) = struct.unpack_from("<Q", content)
        data = content[12 : 12 + length]
        assert content[:8] + struct.pack("<I", masked_crc32c(content[:8])) == content[:12]
        assert struct.unpack_from("<I", content, 12 + length) == (masked_crc32c(data),)
        yield data
        content = content[16 + length :]


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of every field of a protocol buffer; messages and strings as bytes."""

    at = 0

    def varint() -> int:
        nonlocal at
        number = shift = 0
        while True:
            byte = message[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        elif key & 7 == 2:
            length = varint()
            yield key >> 3, message[at : at + length]
            at += length
        else:
            kind, length = {1: ("<d", 8), 5: ("<f", 4)}[key & 7]
            yield key >> 3, struct.unpack_from(kind, message, at)[0]
            at += length


def scalars_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by tag."""
    (path,) = folder.glob("events.out.tfevents.*")
    first, *events = (dict(fields(data)) for data in records(path))
    assert first[3] == b"brain.Event:2"
    found: dict[str, list[tuple[int, float]]] = {}
    for event in events:
        assert abs(event[1] - time.time()) < 600
        for _, value in fields(event[5]):
            entry = dict(fields(value))
            found.setdefault(entry[1].decode(), []).append((event[2], entry[2]))
    return found


@pytest.mark.parametrize("update_freq", ["epoch", "batch", 2])
def test_tensorboard(update_freq: Any, tmp_path: Path) -> None:
    history = fit(
        callbacks.TensorBoard(tmp_path / "logs", update_freq=update_freq), metrics=("mae",), validation_split=0.2
    ).history
    training, validation = scalars_of(tmp_path / "logs" / "train"), scalars_of(tmp_path / "logs" / "validation")
    single = {name: [(i, float(np.float32(v))) for i, v in enumerate(values)] for name, values in history.items()}
    assert validation == {"epoch_loss": single["val_loss"], "epoch_mae": single["val_mae"]}
    assert training["epoch_loss"] == single["loss"]
    assert training["epoch_mae"] == single["mae"]
    assert training["epoch_learning_rate"] == [(i, float(np.float32(0.001))) for i in range(3)]
    steps = [step for step, _ in training.get("batch_loss", [])]
    assert steps == {"epoch": [], "batch": list(range(12)), 2: [1, 3, 5, 7, 9, 11]}[update_freq]
    if update_freq == "batch":  # the mean since the epoch began
        assert training["batch_loss"][3][1] == single["loss"][0][1]


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
    )
    fit(callbacks.TensorBoard(tmp_path), validation_split=0.2)
    for part in ("train", "validation"):
        events = accumulator.EventAccumulator(str(tmp_path / part))
        events.Reload()
        read = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
        assert read == scalars_of(tmp_path / part)


def test_two_trainings_write_two_files(tmp_path: Path) -> None:
    for _ in range(2):
        fit(callbacks.TensorBoard(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["train"]
    assert len(list((tmp_path / "train").iterdir())) == 2


def test_no_event_file_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two containers may agree in the second, the host's name, the process's number and the count."""
    monkeypatch.setattr("time.time", lambda: 1e9)
    for _ in range(2):
        monkeypatch.setattr("fastlstm.training.event_file._count", itertools.count())
        EventWriter(tmp_path).close()
    assert len(names_in(tmp_path)) == 2


def test_a_record_of_many_bytes() -> None:
    """Lengths above 127 take several bytes."""
    name = "x" * 300
    event = dict(fields(scalar_event({name: 0.5, "y": 2.0}, 70_000, 1.5)))
    assert (event[1], event[2]) == (1.5, 70_000)
    assert [dict(fields(value)) for _, value in fields(event[5])] == [{1: name.encode(), 2: 0.5}, {1: b"y", 2: 2.0}]
    assert record(b"abc")[12:15] == b"abc"


def test_numbers_that_float32_lacks() -> None:
    event = dict(fields(scalar_event({"a": 1e300, "b": -1e300, "c": float("inf"), "d": float("nan")}, 0, 0.0)))
    values = [dict(fields(value))[2] for _, value in fields(event[5])]
    np.testing.assert_array_equal(values, [np.inf, -np.inf, np.inf, np.nan])


@pytest.mark.parametrize("update_freq", [0, -1, "sometimes", 1.5])
def test_bad_update_freq(update_freq: Any) -> None:
    with pytest.raises(ValueError, match="update_freq is"):
        callbacks.TensorBoard(update_freq=update_freq)
