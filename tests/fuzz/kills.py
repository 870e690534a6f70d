"""Trainings of the command line that are killed at random moments and resumed: all end with the same bits.

``python -m tests.fuzz.kills --kills 60`` kills as often, each training one to three times. It prints a line a training;
the exit code is 1 if one does not go on, or ends otherwise than the one that nobody killed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FILES = {
    "text.txt": "the cat sat on the mat . a dog ate the cat .\nthe dog sat .\n" * 40,
    "classes.txt": "good\ta fine film with a fine end\nbad\ta dull film\n" * 60,
    "pairs.txt": "a cat\tun chat\na dog\tun chien\nthe cat\tle chat\n" * 40,
    "table.csv": "x\n" + "".join(f"{k % 12}\n" for k in range(300)),
}
COMMANDS = {
    "rnnlm": "rnnlm --data text.txt --epochs 3 --hidden-size 12 --batch-size 4 --time-size 5",
    "word2vec": "word2vec --data text.txt --epochs 3 --vector-size 8 --batch-size 16 --no-eval",
    "sentiment": "sentiment --data classes.txt --epochs 3 --hidden-size 8",
    "translate": "translate --data pairs.txt --epochs 3 --hidden-size 8",
    "series": "series --data table.csv --column x --epochs 3 --hidden-size 8",
    "sine": "sine --epochs 20",
}
SEALED = ("model.safetensors", "history.csv")


def train(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fastlstm", "train", *options, "--threads", "1", "--quiet"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MPLBACKEND": "agg"},
    )


def bits(run: Path) -> dict[str, str]:
    """What two runs have in common: the model, the history, the result."""
    result = json.loads((run / "config.json").read_text())["result"]
    kept = {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in SEALED if (run / name).exists()}
    return {**kept, "loss": repr(result.get("loss"))}


def killed(process: subprocess.Popen[str], after: float) -> bool:
    """Whether the process was still there to be killed."""
    try:
        process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    return False


def try_training(
    folder: Path, task: str, whole: dict[str, str], seconds: float, draw: random.Random
) -> tuple[int, str]:
    """How often it was killed, and what is wrong."""
    kills, run = 0, folder / f"run-{draw.getrandbits(40):x}"
    for _ in range(draw.randint(1, 3)):
        begun = (run / "config.json").exists()
        options = [task, "--resume", str(run)] if begun else [*COMMANDS[task].split(), "--out", str(run)]
        if begun and (run / "config.json").read_text().find('"result"') >= 0:
            break
        if not begun and run.exists() and any(run.iterdir()):
            return kills, f"{run} has no config.json, but {os.listdir(run)}"
        kills += killed(train(folder, *options), draw.uniform(0, seconds))
    for _ in range(2):  # the second says that it is finished, or goes on where there was no config.json yet
        begun = (run / "config.json").exists()
        options = [task, "--resume", str(run)] if begun else [*COMMANDS[task].split(), "--out", str(run)]
        process = train(folder, *options)
        _, err = process.communicate(timeout=600)
        if process.returncode == 0 or "is finished" in err:
            break
    else:
        return kills, err
    now = bits(run)
    return kills, "" if now == whole else f"other bits: {now}, expected {whole}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw, kills, trainings, faults = random.Random(args.seed), 0, 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in FILES.items():
            (folder / file).write_text(content)
        whole, seconds = {}, {}
        for task, options in COMMANDS.items():
            since = time.perf_counter()
            process = train(folder, *options.split(), "--out", f"whole-{task}")
            _, err = process.communicate(timeout=600)
            if process.returncode:
                raise SystemExit(f"{task}: {err}")
            whole[task], seconds[task] = bits(folder / f"whole-{task}"), time.perf_counter() - since
        while kills < args.kills:
            task = draw.choice(list(COMMANDS))
            more, fault = try_training(folder, task, whole[task], seconds[task], draw)
            kills, trainings, faults = kills + more, trainings + 1, faults + bool(fault)
            print(f"{task}: killed {more} times, {fault or 'same bits'}", flush=True)
    print(f"{kills} kills of {trainings} trainings, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
