"""The modules of fastlstm.torch against torch.nn's, forward and backward, as models call them.

    python -m benchmarks.torch_modules [--threads 2] [--seconds 2] [--processor-time] [--scripts]

The sides take turns, medians are printed. Between the turns torch's threads, which wait by spinning, come to rest.
--processor-time, with one thread, is for machines that others use too. --scripts runs the trainings of examples/ as a
whole instead, on texts in FASTLSTM_DATA_DIR where that is set.
"""

from __future__ import annotations

import argparse
import importlib
import lzma
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.bench_lstm import SHAPES, inputs, sizes, title

# Ragged, as in a batch of sentences. (N, T, D, H)
PACKED = (16, 100, 128, 128)
# Nothing but overhead.
TINY = (1, 1, 4, 4)

LEAST_ROUNDS = 7


def call_of(module: Any, x: Any, dhs: Any, lengths: Any = None) -> Callable[[], Any]:
    """Forward and backward of a module, gradients of the input and of all parameters included."""
    import torch

    def call() -> Any:
        module.zero_grad()
        x.grad = None
        if lengths is None:
            hs = module(x)[0]
            hs.backward(dhs)
            return hs
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out = module(packed)[0].data
        out.backward(dhs[: len(out)])
        return out

    return call


def sides(kind: str, shape: Any, *, packed: bool = False) -> dict[str, Callable[[], Any]]:
    """Ours and torch's, from the same weights and inputs; checked to agree."""
    import torch

    import fastlstm.torch

    N, T, D, H = sizes(shape)
    torch.manual_seed(0)
    arrays = inputs(shape, {"LSTM": 4, "GRU": 3, "RNN": 1}[kind])
    theirs = getattr(torch.nn, kind)(D, H, batch_first=True)
    ours = getattr(fastlstm.torch, kind)(D, H, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    lengths, dhs = None, torch.from_numpy(arrays["dhs"])
    if packed:
        lengths = torch.from_numpy(np.random.default_rng(0).integers(T // 5, T + 1, N))
        dhs = dhs.reshape(N * T, H)
    xs = [torch.from_numpy(arrays["xs"].copy()).requires_grad_() for _ in range(2)]
    calls = {
        name: call_of(module, x, dhs, lengths)
        for name, module, x in zip(("ours", "torch"), (ours, theirs), xs, strict=True)
    }
    results = [call().detach() for call in calls.values()]
    assert torch.allclose(*results, atol=1e-4), kind
    assert torch.allclose(xs[0].grad, xs[1].grad, atol=1e-4), kind
    assert torch.allclose(ours.weight_hh_l0.grad, theirs.weight_hh_l0.grad, rtol=1e-3, atol=1e-3), kind
    return calls


def medians(calls: dict[str, Callable[[], Any]], seconds: float, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds a call of each side; turns of several calls, until the time is up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < LEAST_ROUNDS or time.perf_counter() < end:
        rounds += 1
        for name, call in calls.items():
            time.sleep(0.005)
            call()
            began = clock()
            for _ in range(3):
                call()
            times[name].append((clock() - began) / 3)
    return {name: statistics.median(measured) for name, measured in times.items()}


def compare(what: str, calls: dict[str, Callable[[], Any]], args: argparse.Namespace) -> float:
    measured = medians(calls, args.seconds, time.thread_time if args.processor_time else time.perf_counter)
    ratio = measured["torch"] / measured["ours"]
    print(f"{what:42} {1e3 * measured['ours']:9.3f} ms {1e3 * measured['torch']:9.3f} ms {ratio:6.2f}x", flush=True)
    return ratio


def overhead() -> tuple[float, float]:
    """Seconds of a tiny module call, forward and backward, and of the same two calls of ``fastlstm.ops``."""
    import torch

    import fastlstm.torch
    from fastlstm import ops

    N, T, D, H = TINY
    module = fastlstm.torch.LSTM(D, H, batch_first=True)
    x, dhs = torch.ones(N, T, D), torch.ones(N, T, H)
    arrays = {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}
    xs, dhs_array = x.numpy(), dhs.numpy()

    def ours() -> None:
        module(x)[0].backward(dhs)

    def of_ops() -> None:
        b = arrays["bias_ih_l0"] + arrays["bias_hh_l0"]
        out = ops.lstm_forward(xs, arrays["weight_ih_l0"].T, arrays["weight_hh_l0"].T, b)
        ops.lstm_backward(dhs_array, out.tape, without=("dxs", "dh0", "dc0"))

    best = {}
    for call in (ours, of_ops):
        times = []
        for _ in range(30):
            began = time.perf_counter()
            for _ in range(100):
                call()
            times.append((time.perf_counter() - began) / 100)
        best[call.__name__] = statistics.median(times)
    return best["ours"], best["of_ops"]


def texts() -> dict[str, str | None]:
    """A text for each script; its own where no data sets are."""
    folder = os.environ.get("FASTLSTM_DATA_DIR")
    if folder is None:
        return dict.fromkeys(("torch_word_lm", "torch_char_rnn", "torch_classifier"))
    data = Path(folder)
    lines = []
    for label in ("pos", "neg"):
        packed = (data / "rt_polarity" / f"rt-polarity.{label}.xz").read_bytes()
        lines += [f"{label}\t{line}" for line in lzma.decompress(packed).decode("latin-1").splitlines()]
    words = (data / "ptb" / "ptb.valid.txt").read_text()
    return {"torch_word_lm": words, "torch_char_rnn": words, "torch_classifier": "\n".join(lines)}


def run_scripts(steps: int, clock: Callable[[], float]) -> None:
    """The scripts as they are and without their one line."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
    for name, text in texts().items():
        script = importlib.import_module(name)
        losses, seconds = {}, {}
        for by_torch in (False, True):
            began = clock()
            losses[by_torch] = script.main(script.TEXT if text is None else text, steps, by_torch)
            seconds[by_torch] = clock() - began
        difference = np.abs(np.subtract(losses[False], losses[True])).max()
        print(
            f"{name}: {seconds[False]:.2f} s, torch {seconds[True]:.2f} s, {seconds[True] / seconds[False]:.2f}x, "
            f"losses differ by {difference:.1g}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=machine.CORES)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each line")
    parser.add_argument("--processor-time", action="store_true", help="of one thread")
    parser.add_argument("--scripts", action="store_true")
    parser.add_argument("--steps", type=int, default=60, help="of each script")
    args = parser.parse_args()
    if args.processor_time:
        args.threads = 1
    machine.pin_to_two_cores()
    with machine.same_threads(args.threads):
        if args.scripts:
            run_scripts(args.steps, time.thread_time if args.processor_time else time.perf_counter)
            return
        for kind in ("LSTM", "GRU", "RNN"):
            ratios = [compare(f"nn.{kind} {title(name)}", sides(kind, name), args) for name in SHAPES]
            print(f"nn.{kind}: geometric mean {statistics.geometric_mean(ratios):.2f}x, least {min(ratios):.2f}x")
        for kind in ("LSTM", "GRU", "RNN"):
            compare(f"nn.{kind} packed {title(PACKED)}", sides(kind, PACKED, packed=True), args)
        of_module, of_ops = overhead()
        print(f"overhead: module {1e6 * of_module:.1f} us, ops {1e6 * of_ops:.1f} us", flush=True)


if __name__ == "__main__":
    main()
