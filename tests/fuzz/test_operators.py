"""The fuzzer of operators: that it reaches all of them, that it finds what is wrong, and some of its examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fuzz_run
import numpy as np
import operators
import pytest

import fastlstm
from fastlstm import contract, ops
from fastlstm.backends import load_family, use_backend
from fastlstm.testing import arrays_of

FASTEST = fastlstm.available_backends()[0]


def test_some_examples() -> None:
    # Numba compiles a kernel for every dtype of every argument, which takes longer than thousands of examples.
    backends = [name for name in fastlstm.available_backends() if name not in ("cuda", "numba")]
    assert operators.main(["--seed", "1000000", "--examples", "200", "--backends", *backends]) == 0


@pytest.mark.parametrize("seed", [215522, 224796, 227989, 1087265, 1099807, 7302410])
def test_what_the_dtype_cannot_do_is_no_fault(seed: int) -> None:
    # An empty gradient; probabilities that cancel, times small weights; steps so large that rounding decides;
    # rows that are said to be zero and are not; a hard sigmoid at its bound.
    only = ["--only", "lstm_forward", "gru_forward", "rnn_forward"] if seed == 7302410 else []
    assert operators.main(["--seed", str(seed), "--examples", "1", "--backends", FASTEST, *only]) == 0


def _counting(function: Callable[..., Any], called: set[str], name: str) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        called.add(name)
        return function(*args, **kwargs)

    return counted


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of infinite numbers
def test_every_operator_and_every_function_of_the_contract_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = {name for name in ops.__all__ if name != "UnigramTable"}
    called: set[str] = set()
    for name in functions:
        monkeypatch.setattr(ops, name, _counting(getattr(ops, name), called, name))
    for family, protocol in vars(contract).items():
        if isinstance(protocol, type) and family.endswith("Family") and not family.startswith("Device"):
            module = load_family(FASTEST, family.removesuffix("Family").lower())
            for name in [name for name in vars(protocol) if not name.startswith("_")]:
                functions.add(f"{family}.{name}")
                monkeypatch.setattr(module, name, _counting(getattr(module, name), called, f"{family}.{name}"))
    for op in operators.MAKERS:
        examples = [operators.example(seed, (op,)) for seed in range(30)]
        for example in (example for example in examples if example.wrong is None):
            with use_backend(FASTEST):
                fuzz_run.perform(example.case, example.plan, np.copy)
    assert called == functions
    assert "UnigramTable" in operators.MAKERS


def test_one_integer_makes_one_example() -> None:
    for seed in range(60):
        first, second = operators.example(seed), operators.example(seed)
        assert (first.plan, first.dtype, first.wrong) == (second.plan, second.dtype, second.wrong)
        arrays = (arrays_of({**made.case.inputs, **made.case.upstream}) for made in (first, second))
        for (name, one), (other, same) in zip(*(given.items() for given in arrays), strict=True):
            assert (name, one.strides, one.dtype) == (other, same.strides, same.dtype)
            assert one.dtype == object or one.tobytes() == same.tobytes()


@pytest.mark.parametrize(("seed", "op"), [(3, "matrix_product"), (4, "lstm_forward"), (6, "adam_update")])
def test_a_wrong_number_is_reported_with_its_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seed: int, op: str
) -> None:
    module = load_family(FASTEST, {"adam_update": "optim", "lstm_forward": "lstm"}.get(op, "dense"))
    right = getattr(module, op)

    def wrong(*args: Any, **kwargs: Any) -> Any:
        made = right(*args, **kwargs)
        changed = args[0] if made is None else made[0] if isinstance(made, tuple) else made
        if changed.size:
            changed.flat[-1] += changed.dtype.type(0.01)
        return made

    monkeypatch.setattr(module, op, wrong)
    call = ["--examples", "40", "--only", op, "--backends", FASTEST, "--failures", "1", "--seed", str(seed)]
    assert operators.main(call) == 1
    said = capsys.readouterr().out
    assert f"--examples 1 --only {op}: {op}, float" in said
    first = int(said.split("--seed ")[1].split()[0])
    assert operators.main(["--only", op, "--backends", FASTEST, "--seed", str(first), "--examples", "1"]) == 1
    monkeypatch.undo()
    assert operators.main(["--only", op, "--backends", FASTEST, "--seed", str(first), "--examples", "1"]) == 0


def test_a_change_of_an_input_and_a_write_beside_a_result_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load_family(FASTEST, "embedding")
    right = module.scatter_add

    def wrong(target: Any, ids: Any, rows: Any) -> None:
        right(target, ids, rows)
        buffer = target
        while buffer.base is not None:
            buffer = buffer.base
        buffer[-1] = 0

    monkeypatch.setattr(module, "scatter_add", wrong)
    assert operators.main(["--only", "scatter_add", "--backends", FASTEST, "--examples", "20"]) == 1
    monkeypatch.undo()
    right_gather = module.embedding_forward

    def changing(W: Any, ids: Any) -> Any:
        out = right_gather(W, ids)
        W[...] = 0
        return out

    monkeypatch.setattr(module, "embedding_forward", changing)
    assert operators.main(["--only", "embedding_forward", "--backends", FASTEST, "--examples", "20"]) == 1
