"""Fetching data sets, from a server of the test's own."""

from __future__ import annotations

import hashlib
import http.server
import importlib.util
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from command_line import error_of

from fastlstm import datasets
from fastlstm.cli import main
from fastlstm.datasets import download
from fastlstm.datasets.download import RemoteSet

needs_pooch = pytest.mark.skipif(importlib.util.find_spec("pooch") is None, reason="pooch is not installed")
CONTENT = {"ptb.train.txt": b"the cat sat\n", "ptb.valid.txt": b"the cat\n", "ptb.test.txt": b"cat\n"}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None: ...  # noqa: A002


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a server which has the Penn Treebank; FASTLSTM_DATA_DIR is an empty folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
        remote = RemoteSet("a small one", "none", f"http://127.0.0.1:{server.server_port}", digests)
        monkeypatch.setitem(download.SETS, "ptb", remote)
        monkeypatch.setenv("FASTLSTM_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.chdir(tmp_path)
        yield folder
        server.shutdown()


@needs_pooch
def test_a_set_is_fetched_once_and_read(
    served: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["data", "get"]) == 0
    assert "ptb  " in capsys.readouterr().out
    assert main(["data", "get", "ptb"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'data' / 'ptb'}\n"
    assert {path.name: path.read_bytes() for path in (tmp_path / "data" / "ptb").iterdir()} == CONTENT
    assert datasets.ptb("valid").ids.tolist() == [0, 1, 3]
    for path in served.iterdir():
        path.unlink()
    assert main(["data", "get", "ptb"]) == 0  # nothing is asked of the server
    capsys.readouterr()
    assert main(["data", "get"]) == 0
    assert f"there: {tmp_path / 'data' / 'ptb'}" in capsys.readouterr().out
    monkeypatch.setenv("FASTLSTM_DATA_DIR", str(tmp_path / "other"))
    assert main(["data", "get", "ptb"]) == 2
    assert "could not be fetched" in error_of(capsys, 2)


@needs_pooch
def test_the_cache_of_the_platform_is_used_without_a_data_folder(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FASTLSTM_DATA_DIR")
    monkeypatch.setattr("sys.platform", "linux")
    assert datasets.fetch("ptb") == tmp_path / "cache" / "fastlstm" / "ptb"
    assert datasets.ptb("test").ids.tolist() == [1, 3]


@needs_pooch
def test_another_file_than_expected_is_not_kept(
    served: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (served / "ptb.valid.txt").write_text("somebody else's")
    assert main(["data", "get", "ptb"]) == 2
    assert "ptb.valid.txt is not the file that was expected" in error_of(capsys, 2)
    assert not (tmp_path / "data" / "ptb" / "ptb.valid.txt").exists()


def test_what_cannot_be_fetched_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["data", "get", "text9"]) == 2
    assert "there is no data set 'text9' to fetch; there are ptb, small_parallel_enja" in error_of(capsys, 2)
    assert main(["data", "get"]) == 0
    listing = capsys.readouterr().out
    assert "By hand:" in listing
    assert "text8.zip of mattmahoney.net/dc" in listing
    monkeypatch.setitem(__import__("sys").modules, "pooch", None)
    assert main(["data", "get", "ptb"]) == 2
    assert "pip install 'fastlstm[data]'" in error_of(capsys, 2)


def test_every_set_has_an_address_of_a_commit_and_digests() -> None:
    for remote in download.SETS.values():
        assert remote.url.startswith("https://")
        assert any(len(part) == 40 and set(part) <= set("0123456789abcdef") for part in remote.url.split("/"))
        assert remote.about
        assert remote.terms
        assert all(len(bytes.fromhex(digest)) == 32 for digest in remote.files.values())


def test_local_copies_are_the_files_that_would_be_fetched() -> None:
    """Where the sets are, plain or packed, their bytes have the digests."""
    looked_at = 0
    for name, remote in download.SETS.items():
        for file, digest in remote.files.items():
            try:
                path = datasets.files.find_file(f"{name}/{file}", "")
            except FileNotFoundError:
                continue
            with datasets.files.open_unpacked(path) as content:
                assert hashlib.file_digest(content, "sha256").hexdigest() == digest, path
            looked_at += 1
    if not looked_at:
        pytest.skip("no data set is below FASTLSTM_DATA_DIR")
