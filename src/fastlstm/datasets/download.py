"""Data sets that can be fetched: where each file lies, and what it must be to the byte."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fastlstm.datasets.files import data_folders

GITHUB = "https://raw.githubusercontent.com"


class RemoteSet(NamedTuple):
    """A data set.

    Attributes
    ----------
    about, terms : str
        What it is, and what its source says of its use.
    url : str
        The folder that its files lie in.
    files : dict of name to str
        The SHA-256 of each file.
    """

    about: str
    terms: str
    url: str
    files: Mapping[str, str]


# By the name of the folder that they get. A commit's files never change.
SETS: dict[str, RemoteSet] = {
    "ptb": RemoteSet(
        "Penn Treebank, Mikolov's preparation: 929,589 words to train on (rnnlm)",
        "none stated; the text is of the LDC's Treebank (LDC99T42): for benchmarks only",
        f"{GITHUB}/tomsercu/lstm/3b312e3601f5af0d9eb46e99e65e1ddd587a8a05/data",
        {
            "ptb.train.txt": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
            "ptb.valid.txt": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
            "ptb.test.txt": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
        },
    ),
    "small_parallel_enja": RemoteSet(
        "50,000 English sentences with Japanese translations, split into words (translate)",
        "none stated; of the Tanaka corpus, which is CC BY",
        f"{GITHUB}/odashi/small_parallel_enja/312408a11c5fbcbc09443bebb18121f7efdcd61e",
        {
            "train.en": "148b05dcd28638fe20ee84f2b1127001c80982be352007dda241fb759adadc76",
            "train.ja": "fc81a1434349ec98a449d7ae9cd2530057f689637684ecfed3501ea6a8a07ecc",
            "dev.en": "04a2673449770657fd5e3b963cb856be3130923212b6db8ac7eaeef18f06c041",
            "dev.ja": "cd534f56b8639dc130f86a365e5ec0aa70042000bdd740a622fbbf8b6be4acca",
            "test.en": "45edb380749ec2b49cca7618fc5a7595fc9f791180672ba466b90c873a4aa8bf",
            "test.ja": "d37dc460a81b064e4106c8913eb11fa300da05cf3f58a7a5bbfec7e20947ddef",
        },
    ),
    "word_eval": RemoteSet(
        "WordSim-353 and Mikolov's analogies, which word vectors are measured by (word2vec)",
        "analogies Apache-2.0; WordSim-353 none stated",
        f"{GITHUB}/piskvorky/gensim/2d17ddf0f2aa1f7987ddd19c472c9d4da8b5c5c0/gensim/test/test_data",
        {
            "wordsim353.tsv": "f92a022fc2537793a15bc3a8c162ebcd74990e033a228bb6388cb71e4c0b1e1d",
            "questions-words.txt": "8c29b3332afc46f3fb8be04cb5297bf96f39aa7131272dff57869b4485b22a36",
        },
    ),
    "dlfs2": RemoteSet(
        'the sums of "Deep Learning from Scratch 2": --data dlfs2/addition.txt (addition)',
        "MIT",
        f"{GITHUB}/oreilly-japan/deep-learning-from-scratch-2/842ae31c2bb070f5116275606ed90396626a2c17/dataset",
        {"addition.txt": "34e0746f5014c11311c9452ee9050bf14e38eca44ec4aaf4d81eba2b38674009"},
    ),
}


def fetch(name: str, *, progress: bool = False) -> Path:
    """Fetch a data set into the data folder, and return its own folder there; what is there and right stays.

    The data folder is FASTLSTM_DATA_DIR; where that is not set, the platform's folder for caches.

    Parameters
    ----------
    name : str
        One of `SETS`.
    progress : bool
        Show a bar for each file.

    Raises
    ------
    ValueError
        There is no such set, or a file that came is not the one that was expected; it is not kept.
    ImportError
        pooch is not installed.
    OSError
        A file could not be fetched or written.
    """
    if name not in SETS:
        raise ValueError(f"there is no data set {name!r:.60} to fetch; there are {', '.join(SETS)}")
    try:
        import pooch
    except ImportError:
        raise ImportError("fetching data needs pooch; run: pip install 'fastlstm[data]'") from None
    pooch.get_logger().setLevel("WARNING")
    remote, folder = SETS[name], data_folders()[0] / name
    for file, sha256 in remote.files.items():
        url = f"{remote.url}/{file}"
        try:
            downloader = pooch.HTTPDownloader(progressbar=progress)
            pooch.retrieve(url, f"sha256:{sha256}", file, folder, downloader=downloader)
        except OSError as error:
            raise OSError(f"{url} could not be fetched: {error}") from None
        except ValueError as error:
            raise ValueError(f"{url} is not the file that was expected: {error}") from None
    return folder


def is_there(name: str) -> Path | None:
    """The folder that holds all files of a set, as they are or packed; None if there is none."""
    for folder in data_folders():
        paths = [folder / name / file for file in SETS[name].files]
        if all(path.is_file() or path.with_name(f"{path.name}.xz").is_file() for path in paths):
            return folder / name
    return None
