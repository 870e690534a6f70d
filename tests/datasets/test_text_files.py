"""What all readers of text share: packed files, pipes, byte order marks, line ends, and errors that say what came."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import threading
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastlstm import datasets
from fastlstm.datasets import files
from fastlstm.models import WordVectors

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".xz": lzma.compress,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
}
BOM = b"\xef\xbb\xbf"

# Every reader, a text for it, and what it makes of that.
READERS: dict[str, tuple[Callable[[Path], Any], bytes]] = {
    "plain_text char": (datasets.plain_text, b"cat\nsat\n"),
    "plain_text word": (lambda path: datasets.plain_text(path, "word"), b"the cat\nsat\n"),
    "read_words": (datasets.read_words, b"the cat\nsat\n"),
    "labelled_text": (datasets.labelled_text, b"neg\tbad film\npos\tgood\nneg\tdull\n"),
    "parallel_text": (datasets.parallel_text, b"a\tb\nc\td\n"),
    "parallel_text, two files": (lambda path: datasets.parallel_text(path, path, unit="word"), b"a b\nc\n"),
    "read_addition": (datasets.read_addition, b"1+1    _2   \n1+2    _3   \n"),
    "read_dates": (datasets.read_dates, b"1/2/1999_1999-01-02\n1/3/1999_1999-01-03\n"),
    "wordsim353": (datasets.wordsim353, b"tiger\tcat\t7.35\n"),
    "questions_words": (datasets.questions_words, b"athens greece oslo norway\n"),
}


@pytest.mark.parametrize("reader", READERS)
def test_marks_and_ends_of_lines_are_no_part_of_a_text(reader: str, tmp_path: Path) -> None:
    read, content = READERS[reader]
    path = tmp_path / "text"
    path.write_bytes(content)
    want = repr(read(path))
    for same in (BOM + content, content.replace(b"\n", b"\r\n"), content.rstrip(b"\n"), BOM + content.rstrip(b"\n")):
        path.write_bytes(same)
        assert repr(read(path)) == want
    for empty in (b"", BOM, b"\n", b" \r\n\n"):
        path.write_bytes(empty)
        with pytest.raises(ValueError, match="text is empty|text, line 1: "):
            read(path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", PACKERS)
def test_packed_files_are_known_by_their_name_and_by_how_they_begin(suffix: str, reader: str, tmp_path: Path) -> None:
    read, content = READERS[reader]
    plain, named, unnamed = tmp_path / "plain", tmp_path / f"text{suffix}", tmp_path / "text.txt"
    plain.write_bytes(content)
    for path in (named, unnamed):
        path.write_bytes(PACKERS[suffix](content))
        assert repr(read(path)) == repr(read(plain))


def test_a_folder_may_hold_packed_files(tmp_path: Path) -> None:
    (tmp_path / "x.neg.gz").write_bytes(gzip.compress(b"bad film\ndull\n"))
    (tmp_path / "x.pos.bz2").write_bytes(bz2.compress(b"good\n"))
    assert datasets.labelled_text(tmp_path).ts.tolist() == [0, 0, 1]


@pytest.mark.parametrize("suffix", [".xz", ".gz", ".bz2"])
def test_damaged_packed_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"text{suffix}"
    whole = PACKERS[suffix](os.urandom(3000).hex().encode())
    for content in (b"a plain text\n", whole[:-20], whole[:200] + b"???" + whole[203:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"text{suffix} is no intact {suffix} file"):
            datasets.plain_text(path)


def test_archives_are_to_be_unpacked_first(tmp_path: Path) -> None:
    member = tmp_path / "a.txt"
    member.write_text("some text\n")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(member)
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz")):
        with tarfile.open(tmp_path / name, mode) as archive:  # type: ignore[call-overload]
            archive.add(member)
    for name in ("a.zip", "a.tar", "a.tar.gz", "a.tgz"):
        with pytest.raises(ValueError, match=f"{name} is an archive .*: unpack it first"):
            datasets.plain_text(tmp_path / name)


@pytest.mark.parametrize("read", [datasets.plain_text, WordVectors.load_word2vec_format])
def test_an_address_is_to_be_downloaded_first(read: Callable[[str], Any]) -> None:
    with pytest.raises(FileNotFoundError, match="https://example.org/a.txt is an address, .*: download it"):
        read("https://example.org/a.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("größer\n".encode("utf-16"), r"line 1: no UTF-8 .*iconv -f UTF-16 -t UTF-8"),
        (b"one\ncaf\xe9\n", r"line 2: no UTF-8 .*iconv -f ITS_ENCODING -t UTF-8"),
    ],
)
def test_another_encoding_is_named_with_its_remedy(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        datasets.plain_text(path)


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_pipe_is_read_like_a_file(suffix: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    content = PACKERS[suffix](b"the cat\nsat\n" * 2000)

    def write() -> None:
        with open(writing, "wb") as file:
            file.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    text = datasets.plain_text(f"/dev/fd/{reading}", "word")
    writer.join()
    os.close(reading)
    assert (text.vocabulary, len(text.ids)) == (["the", "cat", "<eos>", "sat"], 10_000)


def test_only_what_the_limit_asks_for_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in {"lines": b"0\tbad film\n1\tgood film\n", "words": b"a b c\n"}.items():
        (tmp_path / name).write_bytes(gzip.compress(content * 200_000))
    monkeypatch.setattr(files, "_UNPACKED_ANYHOW", 100_000)
    monkeypatch.setattr(files, "_UNPACKED_TIMES", 1)
    tracemalloc.start()
    assert len(datasets.labelled_text(tmp_path / "lines", limit=10).xs) == 10
    assert len(datasets.parallel_text(tmp_path / "lines", limit=10).xs) == 10
    assert len(datasets.parallel_text(tmp_path / "words", tmp_path / "words", limit=10).xs) == 10
    assert len(datasets.plain_text(tmp_path / "words", "word", limit=10).ids) == 10
    assert datasets.plain_text(tmp_path / "words", limit=3).vocabulary == ["a", " ", "b"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000  # 5 and 1 MB are packed


@pytest.mark.parametrize("pack", [lzma.compress, gzip.compress, bz2.compress])
@pytest.mark.parametrize("line", [b"a" * 99 + b"\n", b"a" * 100])
def test_a_small_file_that_unpacks_to_a_huge_one_is_refused(
    line: bytes, pack: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "text"
    path.write_bytes(pack(line * 20_000))
    assert len(datasets.read_words(path).ids) >= 1
    monkeypatch.setattr(files, "_UNPACKED_ANYHOW", 1_000_000)
    with pytest.raises(ValueError, match="text unpacks to more than [0-9,]* bytes, as no text of its size does"):
        datasets.read_words(path)


def test_what_separates_lines_is_a_line_feed_only(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("0\ta\u2028b\x85c\rd\x0ce\n1\tf\n".encode())
    assert datasets.labelled_text(path).ts.tolist() == [0, 1]


def test_lines_of_a_stream_without_its_end() -> None:
    assert [files.decode_line(line, first=i == 0) for i, line in enumerate(io.BytesIO(BOM + b"a\r\n" + BOM))] == [
        "a",
        "\ufeff",  # within a text it is a sign like others
    ]
