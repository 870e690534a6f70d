"""The steps of a training on a GPU: a replay of a CUDA graph each, where the shapes of the batches stand still.

The first steps of each shape run eagerly, operator by operator, and are steps of the training as all others. Then one
is captured, and the graph is replayed for every batch of that shape. It finds on the device what it would take from the
host: the batch in arrays of its own, the carried state, the seeds of dropout and samplers, the learning rate, Adam's
count; loss and metrics are added up there. So the numbers are the same bits as without a graph.
"""

from __future__ import annotations

import operator
import os
import struct
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.contract import Array
from fastlstm.ops import checks
from fastlstm.training.means import RunningMean

if TYPE_CHECKING:
    from fastlstm.training.loop import Trainer

EAGER_STEPS = 3  # of each shape before the capture, all but the first in the memory of the graph
MOST_SHAPES = 8  # each takes the memory of a step for itself
RARE = 32  # a shape that less than one of so many steps has is not worth a graph
MOST_CAPTURES = 20  # of one shape
MOST_SEEDS = 200  # of a step; with the learning rate they are one launch


class GraphedSteps:
    """Runs the steps of one training whose model is on a GPU.

    Until `close`, Adam counts on the device, with or without graphs, because its powers are computed there then.
    ``FASTLSTM_CUDA_GRAPHS=0`` switches graphs off.

    Parameters
    ----------
    trainer : Trainer
        Its ``step`` is what runs; ``history`` says afterwards how.
    """

    def __init__(self, trainer: Trainer) -> None:
        import cupy

        self._trainer = trainer
        self._cupy = cupy
        self._graphed: dict[Any, GraphedStep] = {}
        self._times: dict[Any, int] = {}
        self._steps = 0
        self._sums: dict[str, _Sum] = {}
        self._last_logs: weakref.ref[BatchLogs] | None = None
        self._allowed = os.environ.get("FASTLSTM_CUDA_GRAPHS", "1") != "0"
        if self._allowed:
            _say_what_is_bypassed()
        else:
            trainer.history.why_no_graph = "FASTLSTM_CUDA_GRAPHS=0 switches graphs off"
        optimizer = trainer.optimizer
        optimizer.prepare(trainer.model.params)
        self._counts = optimizer.step_on_device is None
        if self._counts:
            optimizer.count_on_device(cupy.zeros((), np.int64))

    def close(self) -> None:
        """Leave the optimiser as it was."""
        if self._counts:
            self._trainer.optimizer.step_on_device = None
        self._drop_graphs()

    def logs(self) -> Mapping[str, float]:
        """Loss and metrics of the epoch so far, which are read when somebody asks for them, and waited for."""
        logs = BatchLogs(self._trainer.means)
        self._last_logs = weakref.ref(logs)
        return logs

    def run(self, i: int) -> None:
        """One step on batch i."""
        inputs = self._trainer.source.batch(i)
        if self._last_logs is not None:
            logs = self._last_logs()
            if logs is not None:  # somebody has kept them
                logs.detach()
            self._last_logs = None
        self._steps += 1
        for name, mean in self._trainer.means.items():
            if name not in self._sums:
                self._sums[name] = _Sum(self._cupy)
            mean.sum_in(self._sums[name].total, self._sums[name].count)
        graphed = self._graphed_step(inputs) if self._allowed else None
        if graphed is None:
            self._run_eagerly(inputs)
        elif graphed.eager_steps < EAGER_STEPS:
            graphed.eager_steps += 1
            with graphed.capture.eagerly():
                self._run_eagerly(inputs)
            graphed.state_like = self._trainer.model.state()
        elif graphed.was_captured_with(self._capture_key()):
            self._replay(graphed, inputs, [self._trainer.model.seeds.draw() for _ in range(graphed.num_seeds)])
        else:
            self._run_captured(graphed, inputs)

    def _run_eagerly(self, inputs: tuple[Array, ...]) -> None:
        self._trainer.step(inputs, self._sums)
        self._trainer.history.device_steps["eager"] += 1

    def _graphed_step(self, inputs: tuple[Array, ...]) -> GraphedStep | None:
        shapes = tuple((array.shape, array.dtype.char) for array in inputs)
        graphed = self._graphed.get(shapes)
        if graphed is None:
            self._times[shapes] = times = self._times.get(shapes, 0) + 1
            if times == 1 or times * RARE < self._steps:
                return None
            if len(self._graphed) == MOST_SHAPES:
                self._say(f"batches have more than {MOST_SHAPES} shapes; those of others run operator by operator")
                return None
            graphed = self._graphed[shapes] = GraphedStep()
        return graphed

    def _capture_key(self) -> tuple[Any, ...]:
        trainer = self._trainer
        settings = trainer.max_grad, trainer.metrics
        return (*trainer.model.capture_key(), *trainer.optimizer.capture_key(), *settings)

    def _run_captured(self, graphed: GraphedStep, inputs: tuple[Array, ...]) -> None:
        """Capture the step that is to run now, and replay it; run it eagerly if it cannot be captured."""
        graphed.captures += 1
        if graphed.captures > MOST_CAPTURES:
            self._stop("what a step is captured with, the optimiser's settings for instance, changes too often")
            self._run_eagerly(inputs)
            return
        self._trainer.optimizer.prepare(self._trainer.model.params)
        key = self._capture_key()
        try:
            seeds = self._capture(graphed, inputs)
        except _NotCapturable as error:
            self._stop(str(error))
            self._run_eagerly(inputs)
            return
        graphed.key, graphed.num_seeds = key, len(seeds)
        self._replay(graphed, inputs, seeds)

    def _capture(self, graphed: GraphedStep, inputs: tuple[Array, ...]) -> list[int]:
        """Capture a step, which does not run; returns the seeds it drew. Everything else is as it was."""
        from fastlstm.ops.graph import Capture, GraphScalars

        cupy, trainer = self._cupy, self._trainer
        model, optimizer = trainer.model, trainer.optimizer
        # The device may still run the graph whose memory goes now; and what went wrong earlier is not to be blamed on
        # the capture.
        cupy.cuda.Device().synchronize()
        checks.raise_if_ids_were_wrong()
        if graphed.capture.is_captured:
            graphed.capture = Capture()
        graphed.inputs = [cupy.empty(array.shape, array.dtype) for array in inputs]
        state, step = model.state(), optimizer.step
        # At the beginning of an epoch the state may be zeros, which do not say their shape; the last steps' do.
        graphed.state = [cupy.empty_like(array) for array in state or graphed.state_like]
        graphed.scalars = GraphScalars(1 + MOST_SEEDS)

        def work() -> None:
            model.set_state(graphed.state)
            trainer.step(tuple(graphed.inputs), self._sums)
            for static, left in zip(graphed.state, model.state(), strict=True):
                static[...] = left

        optimizer.lr_on_device = graphed.scalars.floats[:1].reshape(())
        model.forget_step()
        try:
            with model.seeds.in_slots(graphed.scalars.whole[1:]) as seeds:
                graphed.capture.capture(work)
        except Exception as error:
            raise _NotCapturable(f"a step cannot be captured ({type(error).__name__}: {error})") from error
        finally:
            # Python has run the step, the device has not.
            optimizer.lr_on_device, optimizer.step = None, step
            model.set_state(state)
            model.forget_step()
        return seeds

    def _replay(self, graphed: GraphedStep, inputs: tuple[Array, ...], seeds: Sequence[int]) -> None:
        """Run the graph in the place of a step, and leave behind what the step would have left."""
        model, optimizer = self._trainer.model, self._trainer.optimizer
        for static, array in zip(graphed.inputs, inputs, strict=True):
            static[...] = array
        self._hand_over_state(graphed)
        graphed.scalars.store([_bits(optimizer.lr), *seeds])
        graphed.capture.replay()
        # The device has run the step, Python has not.
        optimizer.step += 1
        model.forget_step()
        self._trainer.history.device_steps["graph"] += 1
        checks.raise_if_ids_were_wrong()

    def _hand_over_state(self, graphed: GraphedStep) -> None:
        """Put the carried state where the graph reads it and leaves it, unless it has just been left there."""
        model = self._trainer.model
        state = model.state()
        for k, static in enumerate(graphed.state):
            if not state:
                static.fill(0)
            elif state[k] is not static:
                static[...] = state[k]
        if graphed.state:
            model.set_state(graphed.state)

    def _stop(self, why: str) -> None:
        """No more graphs in this training."""
        self._allowed = False
        self._drop_graphs()
        self._say(why)

    def _drop_graphs(self) -> None:
        if self._graphed:
            self._cupy.cuda.Device().synchronize()  # before the memory of what still runs goes to others
        self._graphed.clear()

    def _say(self, why: str) -> None:
        history = self._trainer.history
        if history.why_no_graph is None:
            history.why_no_graph = why
            warnings.warn(
                f"steps of this training run operator by operator on the GPU, not as a CUDA graph: {why}. The results "
                "are the same. FASTLSTM_CUDA_GRAPHS=0 switches graphs off, and this warning with them",
                RuntimeWarning,
                stacklevel=2,
            )


class GraphedStep:
    """The graph of a step for one shape of batches, and the arrays in which it finds and leaves things."""

    def __init__(self) -> None:
        from fastlstm.ops.graph import Capture, GraphScalars

        self.eager_steps = 1
        self.captures = 0
        self.capture = Capture()
        self.key: tuple[Any, ...] | None = None
        self.inputs: list[Any] = []
        self.state: list[Any] = []
        self.state_like: list[Any] = []
        self.scalars: GraphScalars
        self.num_seeds = 0

    def was_captured_with(self, key: tuple[Any, ...]) -> bool:
        """Whether it was captured with that key: with arrays that lie as these do, and equal settings.

        The key that is kept keeps the arrays too, so that no others come to lie in their memory.
        """
        captured = self.key
        if captured is None or len(captured) != len(key):
            return False
        return all(map(operator.is_, captured, key)) or [*map(_judged, captured)] == [*map(_judged, key)]


def _judged(part: Any) -> Any:
    """What a part of a key is compared by: a setting's value, an array's place in memory."""
    if not checks.is_array(part):
        return part
    return (*checks.span(part), part.shape, part.strides, part.dtype.char)


class BatchLogs(Mapping[str, float]):
    """Loss and metrics of the epoch so far, each read when it is asked for."""

    def __init__(self, means: Mapping[str, RunningMean]) -> None:
        self._means = {name: mean.copy() for name, mean in means.items()}

    def detach(self) -> None:
        """Keep the numbers of now."""
        for mean in self._means.values():
            mean.detach()

    def __getitem__(self, name: str) -> float:
        return self._means[name].value

    def __iter__(self) -> Iterator[str]:
        return iter(self._means)

    def __len__(self) -> int:
        return len(self._means)


class _NotCapturable(Exception):
    """A step that has to run eagerly; the message says why."""


class _Sum:
    """Sums on the device, to which steps add in place."""

    def __init__(self, cupy: Any) -> None:
        self.total: Any = cupy.zeros((), np.float64)
        self.count: Any = cupy.zeros((), np.int64)

    def add(self, total: Any, count: Any) -> None:
        self.total += total
        self.count += count


def _say_what_is_bypassed() -> None:
    from fastlstm.ops.graph import bypassed_allocator

    name = bypassed_allocator()
    if name is not None:
        warnings.warn(
            f"CUDA graphs of this training's steps take their memory from the driver and not by {name}, the allocator "
            "that was set: what a graph uses stays its own. FASTLSTM_CUDA_GRAPHS=0 switches graphs off",
            RuntimeWarning,
            stacklevel=2,
        )


def _bits(number: float) -> int:
    """Of a float64."""
    bits: int = struct.unpack("<Q", struct.pack("<d", number))[0]
    return bits
