"""Whole training steps on a GPU against PyTorch: ``python -m benchmarks.gpu_steps``, or as a part of gpu.sh.

Forward, backward, clipping and update, as `fit` runs them: a launch of a CUDA graph each. The peer runs eagerly, and in
a CUDA graph of its own. The sides take turns; a time is the median over calls between device events, over several
batches. Losses of the first steps are compared before anything is timed. Then whole jobs by `fit`, by the clock: 25
epochs of the addition problem, and an epoch over a text of the Penn Treebank's size (ids of Zipf's law: the text itself
is not at hand).

The RNNLM's products are exact float32 on both sides in one row, TF32 in the other, and TF32 in its whole job.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gpu_measure import about, milliseconds
from benchmarks.text_ids import text_ids
from fastlstm import datasets, optim
from fastlstm.contract import Precision
from fastlstm.models import RNNLM, Seq2seq
from fastlstm.models.text_streams import CarriedState, TextStreams
from fastlstm.training.cuda_graph import GraphedSteps
from fastlstm.training.loop import Trainer

CHECKED_STEPS = 3
LOSS_TOLERANCE = {"fp32": 1e-3, "tf32": 2e-2}  # rounding grows from step to step
CALLS = 20  # in a row between two events
ADDITION_LR, ADDITION_MAX_NORM = 1e-3, 5.0
TEXT_LR, TEXT_MAX_NORM = 20.0, 0.25
PTB_WORDS, PTB_VOCABULARY = 929_589, 10_000


class Addition(NamedTuple):
    """The addition problem: V symbols, questions of S and answers of T ids, the start symbol included."""

    V: int = 13
    D: int = 16
    H: int = 128
    N: int = 128
    S: int = 7
    T: int = 5
    batches: int = 16


class Text(NamedTuple):
    """A language model with tied weights over N streams."""

    V: int = PTB_VOCABULARY
    H: int = 650
    layers: int = 2
    N: int = 20
    T: int = 35
    batches: int = 16


class Ours:
    """Steps of a training, one a call, as `Trainer` runs them between two callbacks."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        trainer._steps = GraphedSteps(trainer)
        trainer.means = {"loss": trainer_mean()}
        self._calls = 0

    def __call__(self) -> None:
        self.trainer._steps.run(self._calls % self.trainer.batches)
        self._calls += 1

    def losses(self, steps: int) -> list[float]:
        """Returns the losses of the next steps, read one by one."""
        found = []
        for _ in range(steps):
            self.trainer.means = {"loss": trainer_mean()}
            self()
            found.append(self.trainer.means["loss"].value)
        return found


def trainer_mean() -> Any:
    from fastlstm.training.means import RunningMean

    return RunningMean()


def addition_data(size: Addition) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    rows = size.N * size.batches
    return text_ids(rng, size.V, rows, size.S), text_ids(rng, size.V, rows, size.T)


def our_addition(size: Addition) -> Ours:
    model = Seq2seq(size.V, size.D, size.H, seed=1).to("cuda")
    xs, ts = addition_data(size)
    return Ours(
        Trainer(
            model, model.batches(xs, ts, size.N), optim.Adam(ADDITION_LR), epochs=1, max_grad=ADDITION_MAX_NORM,
            verbose=0,
        )
    )  # fmt: skip


def our_text(size: Text, precision: Precision | None = None) -> Ours:
    model = RNNLM(size.V, size.H, size.H, num_layers=size.layers, tie_weights=True, seed=1)
    model.to("cuda", precision=precision)
    corpus = text_ids(np.random.default_rng(0), size.V, size.N * size.T * size.batches + 1)
    return Ours(
        Trainer(
            model, TextStreams(corpus, size.N, size.T, "cuda"), optim.SGD(TEXT_LR), epochs=1, max_grad=TEXT_MAX_NORM,
            callbacks=[CarriedState(model, size.N)], verbose=0,
        )
    )  # fmt: skip


def weights_of(trainer: Trainer) -> dict[str, Any]:
    """A model's parameters, on the host."""
    from fastlstm.ops.device import to_host

    return {name: np.array(to_host(param)) for name, param in trainer.model.named_parameters()}


class TorchSteps:
    """The peer's steps on the same batches, eager or in a graph."""

    def __init__(self, model: Any, optimizer: Any, batches: Sequence[tuple[Any, Any]], max_norm: float) -> None:
        self._model, self._optimizer, self._max_norm = model, optimizer, max_norm
        self._batches = batches
        self._params = [param for group in optimizer.param_groups for param in group["params"]]
        self._calls = 0
        self._graph: Any = None

    def _step(self, xs: Any, ts: Any) -> Any:
        import torch

        self._optimizer.zero_grad(set_to_none=self._graph is None)
        loss = self._model(xs, ts)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._params, self._max_norm)
        self._optimizer.step()
        return loss.detach()

    def next_batch(self) -> tuple[Any, Any]:
        batch = self._batches[self._calls % len(self._batches)]
        self._calls += 1
        return batch

    def __call__(self) -> Any:
        if self._graph is None:
            return self._step(*self.next_batch())
        for static, array in zip(self._static, self.next_batch(), strict=True):
            static.copy_(array)
        self._graph.replay()
        return self._loss

    def capture(self) -> TorchSteps:
        """From now on a graph of the step is launched: torch's documentation, "Whole-network capture"."""
        import torch

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._step(*self.next_batch())
        torch.cuda.current_stream().wait_stream(stream)
        self._static = [array.clone() for array in self._batches[0]]
        self._optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._loss = self._step(*self._static)
        self._graph = graph
        return self


def torch_addition(size: Addition, weights: dict[str, Any], *, match_eps: bool = False) -> TorchSteps:
    import torch

    from benchmarks import torch_peers

    xs, ts = (torch.from_numpy(array.astype(np.int64)).cuda() for array in addition_data(size))
    batches = list(zip(xs.split(size.N), ts.split(size.N), strict=True))
    peer = torch_peers.Seq2seq(weights, [], lr=ADDITION_LR, max_norm=ADDITION_MAX_NORM)
    parts = (peer._source, peer._target, peer._encoder, peer._decoder, peer._output)
    module = torch.nn.ModuleList(parts).cuda()
    for lstm in (peer._encoder, peer._decoder):
        lstm.flatten_parameters()
    adam = torch.optim.Adam(module.parameters(), lr=ADDITION_LR, fused=True, capturable=not match_eps)
    steps = TorchSteps(peer.loss, adam, batches, ADDITION_MAX_NORM)
    if match_eps:
        plain = steps._step

        def with_our_eps(xs: Any, ts: Any) -> Any:
            torch_peers.match_eps(adam, steps._calls)
            return plain(xs, ts)

        steps._step = with_our_eps  # type: ignore[method-assign]
    return steps


def torch_text(size: Text, weights: dict[str, Any], batches: Sequence[tuple[Any, Any]]) -> TorchSteps:
    """With its state in static arrays, so that a graph can carry it."""
    import torch
    from torch.nn import functional

    from benchmarks import torch_peers

    lstms = [tuple(weights[f"lstm{depth}.{name}"] for name in ("Wx", "Wh", "b")) for depth in range(1, size.layers + 1)]
    peer = torch_peers.LanguageModel(
        weights["embedding.W"], lstms, None, weights["output.b"], [], lr=TEXT_LR, max_norm=TEXT_MAX_NORM
    )
    module = torch.nn.ModuleList([peer._embedding, *peer._lstms, peer._output]).cuda()
    for lstm in peer._lstms:
        lstm.flatten_parameters()
    states = [torch.zeros(2, 1, size.N, size.H, device="cuda") for _ in lstms]

    def loss(xs: Any, ts: Any) -> Any:
        hs = peer._embedding(xs)
        for lstm, state in zip(peer._lstms, states, strict=True):
            hs, (h, c) = lstm(hs, (state[0].clone(), state[1].clone()))
            state[0].copy_(h.detach())
            state[1].copy_(c.detach())
        return functional.cross_entropy(peer._output(hs).flatten(0, 1), ts.flatten())

    on_gpu = [tuple(torch.from_numpy(ids.astype(np.int64)).cuda() for ids in batch) for batch in batches]
    return TorchSteps(
        loss, torch.optim.SGD(module.parameters(), lr=TEXT_LR, fused=True), on_gpu, TEXT_MAX_NORM  # type: ignore[arg-type]
    )  # fmt: skip


def batches_of(trainer: Trainer) -> list[tuple[Any, Any]]:
    """The batches of a training whose rows keep their order."""
    from fastlstm.ops.device import to_host

    source = trainer.source
    batches = (source.batch(i) for i in range(len(source)))
    return [(to_host(xs), to_host(ts)) for xs, ts in batches]


def check(ours: Sequence[float], theirs: Sequence[float], tolerance: float) -> float:
    """The largest relative difference of losses; raises if they are not those of one model."""
    apart = float(np.max(np.abs(np.array(ours) / np.array(theirs) - 1)))
    if not apart <= tolerance:
        raise AssertionError(f"losses differ by {apart:.2g}, allowed {tolerance:.2g}: {list(ours)} and {list(theirs)}")
    return apart


def microseconds(call: Callable[[], Any], seconds: float, side: str) -> list[float]:
    import cupy
    import torch

    def several() -> None:
        for _ in range(CALLS):
            call()

    if side == "fastlstm":
        times = milliseconds(several, seconds, cupy.cuda.Event, cupy.cuda.get_elapsed_time)
    else:
        times = milliseconds(
            several, seconds, lambda: torch.cuda.Event(enable_timing=True), lambda start, end: start.elapsed_time(end)
        )
    return [1e3 * time / CALLS for time in times]


def compare(name: str, sides: dict[str, Callable[[], Any]], seconds: float, **more: Any) -> dict[str, Any]:
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(3):
        for side, call in sides.items():
            times[side] += microseconds(call, seconds / (3 * len(sides)), side)
    median = {side: statistics.median(values) for side, values in times.items()}
    ratio = {side: median[side] / median["fastlstm"] for side in sides if side != "fastlstm"}
    return {"step": name, "median_us": median, "ratio": ratio, **more}


def measure_steps(seconds: float) -> list[dict[str, Any]]:
    import torch

    results = []
    size = Addition()
    ours = our_addition(size)
    weights = weights_of(ours.trainer)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    peer = torch_addition(size, weights, match_eps=True)
    apart = check(ours.losses(CHECKED_STEPS), [float(peer()) for _ in range(CHECKED_STEPS)], LOSS_TOLERANCE["fp32"])
    sides: dict[str, Callable[[], Any]] = {
        "fastlstm": ours,
        "torch": torch_addition(size, weights),
        "torch, graph": torch_addition(size, weights).capture(),
    }
    results.append(
        compare("addition", sides, seconds / 3, difference=apart, device_steps=ours.trainer.history.device_steps)
    )
    text = Text()
    for precision in ("fp32", "tf32"):
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        ours = our_text(text, "tf32" if precision == "tf32" else None)
        weights, batches = weights_of(ours.trainer), batches_of(ours.trainer)
        peer = torch_text(text, weights, batches)
        losses = [float(peer()) for _ in range(CHECKED_STEPS)]
        apart = check(ours.losses(CHECKED_STEPS), losses, LOSS_TOLERANCE[precision])
        sides = {
            "fastlstm": ours,
            "torch": torch_text(text, weights, batches),
            "torch, graph": torch_text(text, weights, batches).capture(),
        }
        name = f"RNNLM {text.layers}x{text.H} tied, {precision}"
        steps = ours.trainer.history.device_steps
        results.append(compare(name, sides, seconds / 3, difference=apart, device_steps=steps))
    return results


def addition_job(n: int = 50_000, epochs: int = 25, H: int = 128) -> dict[str, Any]:
    """Chapter 7's peeky model with reversed questions, all epochs by the clock, with the accuracy it has then."""
    data = datasets.addition(n, seed=0)
    split = n - n // 10
    model = Seq2seq(len(data.vocabulary), 16, H, peeky=True, reverse_source=True, seed=1).to("cuda")
    start = time.perf_counter()
    history = model.fit(
        data.xs[:split], data.ts[:split], epochs=epochs, batch_size=128, max_grad=5.0, metrics=("loss",), verbose=0
    )
    seconds = time.perf_counter() - start
    accuracy = model.evaluate(data.xs[split:], data.ts[split:])["accuracy"]
    name = f"{epochs} epochs of addition, {n} questions"
    return {"job": name, "seconds": seconds, "accuracy": accuracy, "device_steps": history.device_steps}


def text_job(words: int = PTB_WORDS, V: int = PTB_VOCABULARY, H: int = 650) -> dict[str, Any]:
    """Chapter 6's better model, one epoch by the clock, in TF32."""
    corpus = text_ids(np.random.default_rng(0), V, words)
    model = RNNLM(V, H, H, num_layers=2, tie_weights=True, dropout=0.5, seed=1).to("cuda", precision="tf32")
    start = time.perf_counter()
    history = model.fit(
        corpus, epochs=1, time_size=35, batch_size=20, optimizer=optim.SGD(20.0), max_grad=0.25, verbose=0
    )
    seconds = time.perf_counter() - start
    name = f"an epoch of {words} words, RNNLM 2x{H} tied, dropout 0.5, tf32"
    return {"job": name, "seconds": seconds, "loss": history.history["loss"][0], "device_steps": history.device_steps}


def table(steps: Sequence[dict[str, Any]], jobs: Sequence[dict[str, Any]]) -> str:
    lines = []
    for result in steps:
        median = result["median_us"]
        peers = ", ".join(f"{side} {median[side]:.1f} us ({ratio:.2f}x)" for side, ratio in result["ratio"].items())
        lines.append(f"{result['step']} step: ours {median['fastlstm']:.1f} us; {peers}")
    for job in jobs:
        ran = ", ".join(f"{count} {how}" for how, count in job["device_steps"].items())
        lines.append(f"{job['job']}: {job['seconds']:.2f} s; steps: {ran}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--out", type=Path, help="JSON file; by default named after the device, in benchmarks/results")
    options = parser.parse_args(arguments)
    found = about()
    addition_job(epochs=1)  # CuPy compiles its kernels, which is no part of a job's time
    jobs = [addition_job(), text_job()]
    steps = measure_steps(options.seconds)
    name = found["device"].lower().replace(" ", "-")
    out = options.out or Path(__file__).parent / "results" / f"gpu-{name}-steps.json"
    out.write_text(json.dumps({**found, "steps": steps, "jobs": jobs}, indent=1) + "\n")
    print(f"{found['device']}, driver {found['driver']}, commit {found['commit']}; all of it in {out}")
    print(table(steps, jobs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
