"""The modules of fastlstm.torch against torch.nn's, forward and backward, as models call them.

    python -m benchmarks.torch_modules [--threads 2] [--seconds 2] [--only LSTM packed ...] [--processor-time]
    python -m benchmarks.torch_modules --scripts [--autocast] [--steps 60]

The sides take turns, medians are printed. Between the turns torch's threads, which wait by spinning, come to rest.
--processor-time, with one thread, is for machines that others use too. --scripts runs the trainings of examples/ as a
whole instead, on texts in FASTLSTM_DATA_DIR where that is set, and with --autocast in bfloat16.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
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
from benchmarks.bench_lstm import BF16_SHAPES, SHAPES, inputs, sizes, title

# Ragged, as in a batch of sentences. (N, T, D, H)
PACKED = (16, 100, 128, 128)
# Nothing but overhead.
TINY = (1, 1, 4, 4)

KINDS = ("LSTM", "GRU", "RNN")
PARTS = (*KINDS, "packed", "autocast", "overhead")

LEAST_ROUNDS = 7


def call_of(module: Any, x: Any, dhs: Any, lengths: Any = None, *, autocast: bool = False) -> Callable[[], Any]:
    """Forward and backward of a module, gradients of the input and of all parameters included."""
    import torch

    def call() -> Any:
        module.zero_grad()
        x.grad = None
        if lengths is None:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                hs = module(x)[0]
            hs.backward(dhs.to(hs.dtype))
            return hs
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out = module(packed)[0].data
        out.backward(dhs[: len(out)])
        return out

    return call


def sides(kind: str, shape: Any, *, packed: bool = False, autocast: bool = False) -> dict[str, Callable[[], Any]]:
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
        name: call_of(module, x, dhs, lengths, autocast=autocast)
        for name, module, x in zip(("ours", "torch"), (ours, theirs), xs, strict=True)
    }
    results = [call().detach().float() for call in calls.values()]
    far = 0.1 if autocast else 1e-4
    assert torch.allclose(*results, atol=far), kind
    assert torch.allclose(xs[0].grad, xs[1].grad, atol=far), kind
    far = 0.1 * theirs.weight_hh_l0.grad.abs().max().item() if autocast else 1e-3
    assert torch.allclose(ours.weight_hh_l0.grad, theirs.weight_hh_l0.grad, rtol=1e-3, atol=far), kind
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


def overhead() -> dict[str, float]:
    """Seconds of a tiny module call, forward and backward.

    Beside it the same two calls of ``fastlstm.ops``, a torch.autograd.Function of as many tensors that does nothing,
    and the two one after the other, which is more than their sum: what the one runs has left the caches for the other.
    """
    import torch

    import fastlstm.torch
    from fastlstm import ops

    N, T, D, H = TINY
    module, theirs = (kind(D, H, batch_first=True) for kind in (fastlstm.torch.LSTM, torch.nn.LSTM))
    x, dhs = torch.ones(N, T, D), torch.ones(N, T, H)
    parameters = list(module.parameters())
    w_ih, w_hh, b_ih, b_hh = (parameter.detach().numpy() for parameter in parameters)
    xs, dhs_array = x.numpy(), dhs.numpy()
    results = [torch.zeros(N, T, H), torch.zeros(1, N, H), torch.zeros(1, N, H)]
    grads = [torch.zeros_like(parameter) for parameter in parameters]

    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *tensors: Any) -> Any:
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(*tensors)
            return tuple(result.detach() for result in results)

        @staticmethod
        def backward(ctx: Any, *_: Any) -> Any:
            return None, *grads[: len(ctx.saved_tensors) - 1]

    def of_ops() -> None:
        out = ops.lstm_forward(xs, w_ih.T, w_hh.T, b_ih + b_hh)
        ops.lstm_backward(dhs_array, out.tape, without=("dxs", "dh0", "dc0"))

    def of_nothing() -> None:
        Nothing.apply(x, *parameters)[0].backward(dhs)

    def of_both() -> None:
        of_ops()
        of_nothing()

    calls: dict[str, Callable[[], Any]] = {
        "module": lambda: module(x)[0].backward(dhs),
        "nn.LSTM": lambda: theirs(x)[0].backward(dhs),
        "ops": of_ops,
        "a Function that does nothing": of_nothing,
        "both": of_both,
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(30):
        for name, call in calls.items():
            began = time.perf_counter()
            for _ in range(100):
                call()
            times[name].append((time.perf_counter() - began) / 100)
    return {name: statistics.median(measured) for name, measured in times.items()}


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


def run_scripts(steps: int, clock: Callable[[], float], *, autocast: bool) -> None:
    """The scripts without their one line, with it, and the language model with a second line for its loss."""
    import torch

    sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
    for name, text in texts().items():
        script = importlib.import_module(name)
        sides: dict[str, dict[str, bool]] = {"torch": {"by_torch": True}, "ours": {}}
        if name == "torch_word_lm":
            sides["ours, fused loss"] = {"fused": True}
        losses, seconds = {}, {}
        for side, options in sides.items():
            began = clock()
            # Without the cache of converted weights, which is emptied only where a context ends.
            cast = torch.autocast("cpu", torch.bfloat16, enabled=autocast, cache_enabled=False)
            with cast, contextlib.redirect_stdout(io.StringIO()):
                losses[side] = script.main(script.TEXT if text is None else text, steps, **options)
            seconds[side] = clock() - began
        for side in list(sides)[1:]:
            difference = np.abs(np.subtract(losses[side], losses["torch"])).max()
            print(
                f"{name}, {side}: {seconds[side]:.2f} s, torch {seconds['torch']:.2f} s, "
                f"{seconds['torch'] / seconds[side]:.2f}x, losses differ by {difference:.1g}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=machine.CORES)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each line")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--processor-time", action="store_true", help="of one thread")
    parser.add_argument("--scripts", action="store_true")
    parser.add_argument("--autocast", action="store_true", help="the scripts in bfloat16")
    parser.add_argument("--steps", type=int, default=60, help="of each script")
    args = parser.parse_args()
    if args.processor_time:
        args.threads = 1
    machine.pin_to_two_cores()
    with machine.same_threads(args.threads):
        if args.scripts:
            clock = time.thread_time if args.processor_time else time.perf_counter
            run_scripts(args.steps, clock, autocast=args.autocast)
            return
        for kind in KINDS:
            if kind in args.only:
                ratios = [compare(f"nn.{kind} {title(name)}", sides(kind, name), args) for name in SHAPES]
                print(f"nn.{kind}: geometric mean {statistics.geometric_mean(ratios):.2f}x, least {min(ratios):.2f}x")
        for kind in KINDS if "packed" in args.only else ():
            compare(f"nn.{kind} packed {title(PACKED)}", sides(kind, PACKED, packed=True), args)
        for kind in KINDS if "autocast" in args.only else ():
            for name in BF16_SHAPES:
                compare(f"nn.{kind} autocast {title(name)}", sides(kind, name, autocast=True), args)
        if "overhead" in args.only:
            found = (f"{name} {1e6 * seconds:.1f} us" for name, seconds in overhead().items())
            print(f"a call with next to no work: {', '.join(found)}", flush=True)


if __name__ == "__main__":
    main()
