"""The steps of a training on a GPU: a launch of a CUDA graph each, where the shapes of the batches stand still.

The first steps of each shape run operator by operator, and are steps of the training as all others. Then one is
captured, and the graph runs for every batch of that shape. It finds on the device what it would take from the host: the
batch in arrays of its own, the carried state, the seeds of dropout and samplers, the learning rate, Adam's count; loss
and metrics are added up there. So the numbers are the same bits as without a graph.
"""

from __future__ import annotations

import os
import struct
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.contract import Array
from fastlstm.ops import checks
from fastlstm.ops.device_steps import draw_on_host, seeds_on_device

if TYPE_CHECKING:
    from fastlstm.training.loop import Trainer

EAGER_STEPS = 3  # of each shape before the capture, all but the first in the memory of the graph
MOST_SHAPES = 8  # each takes the memory of a step for itself
RARE = 32  # a shape that less than one of so many steps has is not worth a graph
MOST_CAPTURES = 20  # of one shape
MOST_SEEDS = 200  # of a step; with the learning rate they are one launch


class DeviceSteps:
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
        self._graphs: dict[Any, _StepGraph] = {}
        self._times: dict[Any, int] = {}
        self._steps = 0
        self._sums: dict[str, _Sum] = {}
        self._allowed = os.environ.get("FASTLSTM_CUDA_GRAPHS", "1") != "0"
        if not self._allowed:
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
        if self._graphs:
            self._cupy.cuda.Device().synchronize()  # before the memory of what still runs goes to others
        self._graphs.clear()

    def run(self, inputs: tuple[Array, ...]) -> None:
        """One step."""
        self._steps += 1
        for name, mean in self._trainer.means.items():
            if name not in self._sums:
                self._sums[name] = _Sum(self._cupy)
            mean.sum_in(self._sums[name].total, self._sums[name].count)
        graph = self._graph_for(inputs) if self._allowed else None
        if graph is None:
            self._run_eagerly(inputs)
        elif graph.eager_steps < EAGER_STEPS:
            graph.eager_steps += 1
            with graph.capture.eagerly():
                self._run_eagerly(inputs)
            graph.state_like = self._trainer.model.state()
        else:
            self._launch(graph, inputs)

    def _run_eagerly(self, inputs: tuple[Array, ...]) -> None:
        self._trainer.step(inputs, self._sums)
        self._trainer.history.device_steps["eager"] += 1

    def _graph_for(self, inputs: tuple[Array, ...]) -> _StepGraph | None:
        shapes = tuple((array.shape, array.dtype.char) for array in inputs)
        graph = self._graphs.get(shapes)
        if graph is None:
            self._times[shapes] = times = self._times.get(shapes, 0) + 1
            if times == 1 or times * RARE < self._steps:
                return None
            if len(self._graphs) == MOST_SHAPES:
                self._say(f"batches have more than {MOST_SHAPES} shapes; those of others run operator by operator")
                return None
            graph = self._graphs[shapes] = _StepGraph()
        return graph

    def _launch(self, graph: _StepGraph, inputs: tuple[Array, ...]) -> None:
        trainer = self._trainer
        optimizer = trainer.optimizer
        now = trainer.captured()
        if graph.captured_with != now:
            graph.captures += 1
            if graph.captures > MOST_CAPTURES:
                self._stop("what a step is captured with, the optimiser's settings for instance, changes too often")
                self._run_eagerly(inputs)
                return
            if not self._capture(graph, inputs):
                self._run_eagerly(inputs)
                return
            graph.captured_with = trainer.captured()
            seeds = graph.seeds.values
        else:
            seeds = graph.seeds.draw_again()
            optimizer.step += 1
        for static, array in zip(graph.inputs, inputs, strict=True):
            static[...] = array
        self._hand_over_state(graph)
        graph.numbers.store([_bits(optimizer.lr), *seeds])
        graph.capture.launch()
        trainer.history.device_steps["graph"] += 1
        checks.raise_if_ids_were_wrong()

    def _hand_over_state(self, graph: _StepGraph) -> None:
        """Put the carried state where the graph reads it, unless it has just been left there."""
        model = self._trainer.model
        state = model.state()
        for k, static in enumerate(graph.state):
            if not state:
                static.fill(0)
            elif state[k] is not static:
                static[...] = state[k]
        if graph.state:
            model.set_state(graph.state)

    def _capture(self, graph: _StepGraph, inputs: tuple[Array, ...]) -> bool:
        """Capture the step that is to run now; False, and everything as it was, if it cannot be captured."""
        from fastlstm.ops.graph import Capture, GraphScalars

        cupy, trainer = self._cupy, self._trainer
        model, optimizer = trainer.model, trainer.optimizer
        if graph.capture.is_captured:  # of what has changed since
            graph.capture = Capture()
        graph.inputs = [cupy.empty(array.shape, array.dtype) for array in inputs]
        state, step = model.state(), optimizer.step
        # At the beginning of an epoch the state may be zeros, which do not say their shape; the last steps' do.
        graph.state = [cupy.empty_like(array) for array in state or graph.state_like]
        graph.numbers = GraphScalars(1 + MOST_SEEDS)
        graph.seeds = Seeds(graph.numbers.whole[1:])

        def work() -> None:
            model.set_state(graph.state)
            trainer.step(tuple(graph.inputs), self._sums)
            for static, left in zip(graph.state, model.state(), strict=True):
                static[...] = left

        # What went wrong earlier is not to be blamed on the capture.
        cupy.cuda.Device().synchronize()
        checks.raise_if_ids_were_wrong()
        optimizer.lr_on_device = graph.numbers.floats[:1].reshape(())
        try:
            with seeds_on_device(graph.seeds):
                graph.capture.capture(work)
        except Exception as error:
            graph.seeds.put_back()
            optimizer.step = step
            self._stop(f"a step cannot be captured ({type(error).__name__}: {error})")
            return False
        finally:
            optimizer.lr_on_device = None
            model.set_state(state)
        return True

    def _stop(self, why: str) -> None:
        """No more graphs in this training."""
        self._allowed = False
        self._cupy.cuda.Device().synchronize()
        self._graphs.clear()
        self._say(why)

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


class _StepGraph:
    """The graph of a step for one shape of batches, and the arrays in which it finds and leaves things."""

    def __init__(self) -> None:
        from fastlstm.ops.graph import Capture, GraphScalars

        self.eager_steps = 1
        self.captures = 0
        self.capture = Capture()
        self.captured_with: tuple[Any, ...] | None = None
        self.inputs: list[Any] = []
        self.state: list[Any] = []
        self.state_like: list[Any] = []
        self.numbers: GraphScalars
        self.seeds: Seeds


class Seeds:
    """Seeds on the device, in the order in which a step draws them.

    Parameters
    ----------
    places : (S,) uint64 array on the GPU
        Where the seeds of each run are to stand.

    Attributes
    ----------
    generators : list of numpy Generators
        Who draws each of them.
    values : list of int
        What was drawn for the step at hand.
    """

    def __init__(self, places: Any) -> None:
        self._places = places
        self.generators: list[np.random.Generator] = []
        self.values: list[int] = []
        self._before: list[tuple[np.random.Generator, Any]] = []

    def take(self, rng: np.random.Generator) -> Any:
        """A seed of the step that is captured, 0-d."""
        k = len(self.generators)
        if k == len(self._places):
            raise RuntimeError(f"a step draws more than {k} seeds, for which there is no room on the GPU")
        if not any(known is rng for known, _ in self._before):
            self._before.append((rng, rng.bit_generator.state))
        self.generators.append(rng)
        self.values.append(draw_on_host(rng))
        return self._places[k : k + 1].reshape(())

    def draw_again(self) -> list[int]:
        """The seeds of another step, drawn as the step itself would."""
        self.values = [draw_on_host(rng) for rng in self.generators]
        return self.values

    def put_back(self) -> None:
        """As if nothing had been drawn: the generators go back to where they were before the first `take`."""
        for rng, state in self._before:
            rng.bit_generator.state = state


class _Sum:
    """Sums on the device, to which steps add in place."""

    def __init__(self, cupy: Any) -> None:
        self.total: Any = cupy.zeros((), np.float64)
        self.count: Any = cupy.zeros((), np.int64)

    def add(self, total: Any, count: Any) -> None:
        self.total += total
        self.count += count


def _bits(number: float) -> int:
    """Of a float64."""
    bits: int = struct.unpack("<Q", struct.pack("<d", number))[0]
    return bits
