"""What the tests run under mpiexec: MODE FOLDER."""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from pathlib import Path
from typing import Any

from tiny_models import MAKERS, parameters

from fastlstm import callbacks, distributed
from fastlstm.distributed import Workers, gradients
from fastlstm.models import Model

SHARDS = 4


def digest(model: Model) -> int:
    """Of the weights and of the carried state."""
    return zlib.crc32(b"".join(array.tobytes() for array in (*parameters(model), *model.state())))


def train(kind: str, workers: Workers | None, **changed: Any) -> Model:
    make, data, arguments = MAKERS[kind]
    model = make()
    model.fit(*data(7), **{**arguments, "verbose": 0, "max_grad": 0.1, "shards": SHARDS, "workers": workers, **changed})
    return model


def train_early(workers: Workers) -> dict[str, int]:
    """The same, of models whose gradients travel while others are computed."""
    gradients.WORTH_SENDING = 1
    workers.overlaps = True
    return {kind: digest(train(kind, workers)) for kind in MAKERS if kind.startswith(("rnnlm", "seq2seq"))}


def train_all(workers: Workers | None) -> dict[str, int]:
    """Every model's digest."""
    return {kind: digest(train(kind, workers)) for kind in MAKERS}


class Slowly(callbacks.Callback):
    """Leaves time for signals between two batches, and a line for each batch in a file."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        time.sleep(0.05)
        if self.trainer.writes_files:
            with self.file.open("a") as file:
                file.write(f"{self.trainer.epoch} {batch}\n")


def long_training(workers: Workers | None, folder: Path, *more: callbacks.Callback) -> Model:
    """Five epochs of three batches, with a checkpoint after each batch."""
    backup = callbacks.BackupAndRestore(folder / "backup", 1, delete_checkpoint=False)
    return train("rnnlm two layers, tied, dropout", workers, epochs=5, callbacks=[*more, backup])


class Fail(callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        if batch == 1 and not self.trainer.writes_files:
            raise RuntimeError("out of luck")


def main(mode: str, folder: Path) -> None:
    workers = distributed.mpi()
    (folder / f"{workers.rank}.pid").write_text(str(os.getpid()))
    if mode == "all":
        found = train_all(workers)
        (folder / f"{workers.rank}.json").write_text(json.dumps(found))
        assert found.items() >= train_early(workers).items()
    elif mode == "long":
        long_training(workers, folder, Slowly(folder / "batches"))
    elif mode == "fail":
        train("classifier", workers, callbacks=[Fail()])
    else:
        raise ValueError(mode)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
