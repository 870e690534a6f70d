"""Trainings of the command line that are killed at random moments and resumed: all end with the same bits.

``python -m tests.fuzz.kills --kills 60`` kills as often, the trainings of `COMMANDS` in turn, up to three times each.
A line a training is printed; the exit code is 1 if one does not go on, or ends otherwise than the one nobody killed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fastlstm.cli.tasks import TASKS

FILES = {
    "text.txt": "the cat sat on the mat . a dog ate the cat .\nthe dog sat .\n" * 40,
    "classes.txt": "good\ta fine film with a fine end\nbad\ta dull film\n" * 60,
    "pairs.txt": "a cat\tun chat\na dog\tun chien\nthe cat\tle chat\n" * 40,
    "table.csv": "x\n" + "".join(f"{k % 12}\n" for k in range(300)),
    "sums.txt": "".join(f"{f'{k % 90}+{k % 7}':7}_{k % 90 + k % 7:<4}\n" for k in range(600)),
    "dates.txt": "".join(
        f"{f'{k % 12 + 1}-{k % 28 + 1}-97':10}_1997-{k % 12 + 1:02}-{k % 28 + 1:02}\n" for k in range(600)
    ),
}
COMMANDS = {
    "addition": "addition --data sums.txt --epochs 12 --hidden-size 16",
    "rnnlm": "rnnlm --data text.txt --epochs 8 --hidden-size 12 --batch-size 4 --time-size 5",
    "dates": "dates --data dates.txt --epochs 8 --hidden-size 16 --bidirectional",
    "translate": "translate --data pairs.txt --epochs 6 --hidden-size 8",
    "word2vec": "word2vec --data text.txt --epochs 8 --vector-size 8 --batch-size 16 --no-eval",
    "sentiment": "sentiment --data classes.txt --epochs 8 --hidden-size 8",
    "series": "series --data table.csv --column x --epochs 12 --hidden-size 8",
    "sine": "sine --epochs 40",
    "compare": "addition --data sums.txt --epochs 4 --hidden-size 16 --compare",
}
SEALED = ("model.safetensors", "history.csv", "continued.csv")


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
    """What two runs have in common: models, histories but for the seconds that epochs took, the result."""

    def without_seconds(path: Path) -> bytes:
        with path.open(newline="") as file:
            rows = [{**row, "seconds": ""} for row in csv.DictReader(file)]
        return repr(rows).encode()

    files = [path for name in SEALED for path in sorted(run.rglob(name))]
    kept = {
        str(path.relative_to(run)): hashlib.sha256(
            without_seconds(path) if path.suffix == ".csv" else path.read_bytes()
        ).hexdigest()
        for path in files
    }
    return {**kept, "loss": repr(json.loads((run / "config.json").read_text())["result"].get("loss"))}


def epochs_of(run: Path) -> int:
    """How many epochs stand in the run's histories, and a line for each history."""
    return sum(path.read_bytes().count(b"\n") for path in run.rglob("history.csv"))


def killed(process: subprocess.Popen[str], run: Path, epochs: int, delay: float) -> bool:
    """Kill it so many seconds after so many epochs; whether it was still there."""
    while epochs_of(run) < epochs and process.poll() is None:
        time.sleep(0.002)
    try:
        process.communicate(timeout=delay)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    return False


def options_of(command: str, run: Path) -> list[str]:
    """How the training begins, or goes on where it has begun."""
    if (run / "config.json").exists():
        return [COMMANDS[command].split()[0], "--resume", str(run)]
    return [*COMMANDS[command].split(), "--out", str(run)]


def try_training(
    folder: Path, command: str, whole: dict[str, str], epochs: int, draw: random.Random
) -> tuple[int, int, str]:
    """How often it was killed, how often of these after an epoch, and what is wrong."""
    kills, late, run = 0, 0, folder / f"run-{draw.getrandbits(40):x}"
    for _ in range(draw.randint(1, 3)):
        if (run / "config.json").exists() and '"result"' in (run / "config.json").read_text():
            break
        process = train(folder, *options_of(command, run))
        if killed(process, run, draw.randint(epochs_of(run), epochs), draw.uniform(0, 0.5)):
            kills, late = kills + 1, late + any(run.rglob("checkpoint.safetensors"))
    for _ in range(2):  # the second says that it is finished, or goes on where there was no config.json yet
        process = train(folder, *options_of(command, run))
        _, err = process.communicate(timeout=3600)
        if process.returncode == 0 or "is finished" in err:
            break
    else:
        return kills, late, err
    now = bits(run)
    return kills, late, "" if now == whole else f"other bits: {now}, expected {whole}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    untried = {task.TASK for task, _ in TASKS} - {options.split()[0] for options in COMMANDS.values()}
    if untried:
        raise SystemExit(f"no training of {', '.join(untried)} is killed")
    draw, kills, late, trainings, faults = random.Random(args.seed), 0, 0, 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in FILES.items():
            (folder / file).write_text(content)
        whole, epochs = {}, {}
        for command, options in COMMANDS.items():
            process = train(folder, *options.split(), "--out", f"whole-{command}")
            _, err = process.communicate(timeout=3600)
            if process.returncode:
                raise SystemExit(f"{command}: {err}")
            whole[command], epochs[command] = bits(folder / f"whole-{command}"), epochs_of(folder / f"whole-{command}")
        for command in itertools.cycle(COMMANDS):
            more, later, fault = try_training(folder, command, whole[command], epochs[command], draw)
            kills, late, trainings, faults = kills + more, late + later, trainings + 1, faults + bool(fault)
            print(f"{command}: killed {more} times, {fault or 'same bits'}", flush=True)
            if kills >= args.kills:
                break
    print(f"{kills} kills of {trainings} trainings, {late} of them after an epoch, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
