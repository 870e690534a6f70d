"""The plan of the package: which way imports point, one protocol for all backends, public names, a quick import."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
import typing
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fastlstm
from fastlstm import contract, ops

SOURCE = Path(fastlstm.__file__).parent
FILES = sorted(path for path in SOURCE.rglob("*.py"))

# Each room of the flow may import itself, those after it, and these.
FLOW = (
    "interop",
    "models",
    "training",
    "distributed",
    "datasets",
    "array_pickle",
    "tensor_file",
    "optim",
    "layers",
    "ops",
    "backends",
)
ANYWHERE = {"arrays", "contract"}
# Rooms beside the flow, and what they may import besides.
BESIDE = {"torch": {"ops"}}

# Who computes asks ops. The others speak of backends: which there are, which one runs, and why.
IMPORT_BACKENDS = {"ops", "backends", "config", "testing", "cli", "__init__"}


def room_of(path: Path) -> str:
    """The first part of the path below the package: "ops", "models", "contract" ..."""
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imported_names(path: Path, *, inside_functions: bool) -> set[str]:
    """Full names of the modules that a file imports; without ``inside_functions``, those it imports when it loads."""
    tree = parsed(path)
    lazy = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    # What is imported for annotations only is never loaded.
    for block in ast.walk(tree):
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING":
            lazy |= {id(node) for node in ast.walk(block)}
    names = set()
    for node in ast.walk(tree):
        if id(node) in lazy and not inside_functions:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("room", [*FLOW, *BESIDE])
def test_imports_point_one_way(room: str) -> None:
    allowed = {room, *BESIDE.get(room, FLOW[FLOW.index(room) :] if room in FLOW else ()), *ANYWHERE}
    wrong = []
    for path in FILES:
        if room_of(path) != room:
            continue
        for name in imported_names(path, inside_functions=True):
            parts = name.split(".")
            if parts[0] == "fastlstm" and len(parts) > 1 and parts[1] not in allowed:
                compiled = room == "backends" and parts[1].startswith("_c")
                if not compiled:
                    wrong.append(f"{path.relative_to(SOURCE)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_rooms_import_each_other_in_no_circle() -> None:
    """Not even inside functions, or for annotations."""
    rooms = {room_of(path) for path in FILES} - {"__init__"}
    graph: dict[str, set[str]] = {room: set() for room in rooms}
    for path in FILES:
        for name in imported_names(path, inside_functions=True):
            package, _, inside = name.partition(".")
            other = inside.partition(".")[0]
            if package == "fastlstm" and other in rooms and room_of(path) in rooms - {other}:
                graph[room_of(path)].add(other)
    TopologicalSorter(graph).prepare()


def test_interop_knows_layers_and_not_training() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)} imports {name}"
        for path in FILES
        if room_of(path) == "interop"
        for name in imported_names(path, inside_functions=True)
        if name.split(".")[:2] in (["fastlstm", room] for room in ("training", "datasets", "optim"))
    ]
    assert not wrong, "\n".join(wrong)


def test_only_operators_compute_with_backends() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)} imports {name}"
        for path in FILES
        if room_of(path) not in IMPORT_BACKENDS
        for name in imported_names(path, inside_functions=True)
        if name.split(".")[:2] == ["fastlstm", "backends"]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", sorted(ANYWHERE))
def test_the_ground_floor_imports_nothing_of_the_package(name: str) -> None:
    names = imported_names(SOURCE / f"{name}.py", inside_functions=True)
    assert not [name for name in names if name.startswith("fastlstm")]


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    heavy = {"numba", "llvmlite", "matplotlib", "cupy", "onnx", "torch", "tensorflow", "sacrebleu", "mpi4py"}
    heavy |= {"h5py", "janome", "keras", "pandas", "pooch", "sklearn"}
    wrong = []
    for path in FILES:
        if any(path.is_relative_to(SOURCE / room) for room in ("backends/numba", "backends/cuda", "torch")):
            continue
        for name in imported_names(path, inside_functions=False):
            if name.split(".")[0] in heavy:
                wrong.append(f"{path.relative_to(SOURCE)} imports {name} when it loads")
    assert not wrong, "\n".join(wrong)


# No file of more lines, but the contract and these, which are still to be split.
MOST_LINES = 600
LONGER = {"contract.py"}


def test_no_source_file_is_too_long_to_read() -> None:
    kernels = SOURCE.parents[1] / "csrc"
    files = [*FILES, *(path for kind in ("cc", "cu", "h") for path in kernels.rglob(f"*.{kind}"))]
    assert not [path for path in files if len(path.read_text().splitlines()) > MOST_LINES and path.name not in LONGER]


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert not [
        path for path in FILES if path.stem in {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
    ]


# --------------------------------------------------------------------------------------------
# Backends
# --------------------------------------------------------------------------------------------

ALL_PROTOCOLS: dict[str, type[Any]] = {
    name.removesuffix("Family"): protocol
    for name, protocol in vars(contract).items()
    if name.endswith("Family") and getattr(protocol, "_is_protocol", False)
}
PROTOCOLS = {name.lower(): protocol for name, protocol in ALL_PROTOCOLS.items() if not name.startswith("Device")}
# Those that are others on a GPU.
DEVICE_PROTOCOLS = {
    name.removeprefix("Device").lower(): protocol
    for name, protocol in ALL_PROTOCOLS.items()
    if name.startswith("Device")
}


def protocol_of(backend: str, family: str) -> type[Any]:
    return {**PROTOCOLS, **(DEVICE_PROTOCOLS if backend == "cuda" else {})}[family]


def backend_packages() -> list[str]:
    packages = [path.parent.name for path in (SOURCE / "backends").glob("*/__init__.py")]
    # A module can only be loaded, and looked at, where its backend works.
    return sorted(name for name in packages if name in fastlstm.available_backends())


def load(backend: str, family: str) -> ModuleType:
    return importlib.import_module(f"fastlstm.backends.{backend}.{family}")


def functions_of(protocol: type[Any]) -> dict[str, Any]:
    return {name: f for name, f in inspect.getmembers(protocol, inspect.isfunction) if not name.startswith("_")}


def test_every_family_has_a_protocol_and_every_operator_module_a_family() -> None:
    modules = {path.stem for path in (SOURCE / "backends" / "numpy").glob("*.py")} - {"__init__"}
    assert set(PROTOCOLS) == modules
    assert modules <= {path.stem for path in (SOURCE / "ops").glob("*.py")}


@pytest.mark.parametrize("family", PROTOCOLS)
@pytest.mark.parametrize("package", backend_packages())
def test_backend_has_the_functions_of_the_protocol(package: str, family: str) -> None:
    if package == "cuda" and family not in importlib.import_module("fastlstm.backends.cuda").FAMILIES:
        pytest.skip(f"the CUDA backend has no {family} yet")
    module = load(package, family)
    for name, wanted in functions_of(protocol_of(package, family)).items():
        assert hasattr(module, name), f"{module.__name__} has no {name}"
        expected = list(inspect.signature(wanted).parameters.values())[1:]  # without self
        try:
            actual = list(inspect.signature(getattr(module, name)).parameters.values())
        except ValueError:
            continue  # a function of the extension itself, which has no signature to read
        assert [(p.name, p.kind) for p in actual[: len(expected)]] == [(p.name, p.kind) for p in expected], name
        for further in actual[len(expected) :]:
            assert further.default is not inspect.Parameter.empty, f"{name} needs {further.name}"


def test_the_type_checker_reads_every_family_of_every_backend() -> None:
    """backend_types.py is a list of them; a module of another signature is an error of mypy there."""
    listed = {
        (ast.unparse(node.annotation), ast.unparse(node.value))
        for node in ast.parse((Path(__file__).parent / "support" / "backend_types.py").read_text()).body
        if isinstance(node, ast.AnnAssign) and node.value is not None
    }
    wanted = {
        (protocol_of(path.parent.name, path.stem).__name__, f"fastlstm.backends.{path.parent.name}.{path.stem}")
        for path in (SOURCE / "backends").glob("*/*.py")
        if path.stem in {*PROTOCOLS, *DEVICE_PROTOCOLS}
    }
    assert listed == wanted


@pytest.mark.parametrize("name", ["_cpu", "_cuda"])
def test_the_stub_describes_the_extension(name: str) -> None:
    """Names and parameters of the stub are those that pybind11 writes into the docstrings."""
    extension: Any = pytest.importorskip(f"fastlstm.{name}", reason=f"the extension {name} is not built")
    stub = ast.parse((SOURCE / f"{name}.pyi").read_text())
    described = {
        node.name: [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
        for node in stub.body
        if isinstance(node, ast.FunctionDef)
    }
    actual = {
        name: re.findall(r"[(,] ?(\w+):", value.__doc__.splitlines()[0])
        for name, value in vars(extension).items()
        if callable(value) and not inspect.isclass(value)
    }
    assert described == actual


# --------------------------------------------------------------------------------------------
# The public surface
# --------------------------------------------------------------------------------------------

# Parameters by position, "*", then those by keyword.
OPERATORS = {
    "lstm_cell_forward": "x h_prev c_prev Wx Wh b * gate_order",
    "lstm_cell_backward": "dh dc tape * out accumulate without",
    "lstm_forward": "xs Wx Wh b * h0 c0 mask lengths reverse gate_order recurrent_activation training time_major",
    "lstm_backward": "dhs tape * dh_n dc_n out accumulate without",
    "gru_cell_forward": "x h_prev Wx Wh b * convention",
    "gru_cell_backward": "dh tape * out accumulate without",
    "gru_forward": "xs Wx Wh b * h0 mask lengths reverse convention training time_major",
    "gru_backward": "dhs tape * dh_n out accumulate without",
    "rnn_cell_forward": "x h_prev Wx Wh b *",
    "rnn_cell_backward": "dh tape * out accumulate without",
    "rnn_forward": "xs Wx Wh b * h0 mask lengths reverse training time_major",
    "rnn_backward": "dhs tape * dh_n out accumulate without",
    "embedding_forward": "W ids",
    "embedding_backward": "ids dout num_embeddings * padding_idx out touched accumulate",
    "embedding_backward_rows": "ids dout * padded",
    "scatter_add": "target ids rows",
    "batched_product": "a b * precision",
    "softmax": "logits * temperature",
    "softmax_cross_entropy": "logits targets * ignore_index reduction normalizer weights",
    "linear_cross_entropy": "h W b targets * ignore_index memory precision out accumulate without reduction normalizer",
    "sigmoid_cross_entropy": "logits labels * normalizer reduction",
    "mean_squared_error": "y t * reduction normalizer weights",
    "log_uniform_candidates": "num_sampled range_max true_classes * unique rng seed",
    "log_uniform_expected_count": "classes num_tries range_max * unique num_sampled",
    "unigram_candidates": "counts num_sampled true_classes * power unique rng seed",
    "sampled_logits_forward": "weights biases labels inputs candidates * subtract_log_q remove_accidental_hits",
    "sampled_logits_backward": "dlogits tape",
    "nce_loss": "weights biases labels inputs candidates * remove_accidental_hits padded",
    "sampled_softmax_loss": "weights biases labels inputs candidates * remove_accidental_hits padded",
    "negative_sampling_loss": "weights labels inputs candidates * padded",
    "clip_grad_norm": "grads max_norm",
    "clip_grad_value": "grads limit",
    "adagrad_update": "params grads accumulators lr * eps eps_inside_root lazy grad_scale",
    "pack_gates": "gates * gate_order axis",
    "unpack_gates": "W * gate_order axis",
    "subsample": "ids keep * seed first",
    "skipgram_counts": "ids window * start stop seed first",
    "skipgram_pairs": "ids window * start stop seed first",
    "negative_sampling_update": "vectors weights centers contexts table * num_sampled lr seed",
    "cbow_update": "vectors weights centers contexts counts table * num_sampled lr divide_step seed",
}


def parameters_of(function: Any) -> str:
    words = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        words.append(parameter.name)
    return " ".join(words)


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_takes_the_arguments_that_users_rely_on(name: str) -> None:
    function = getattr(ops, name)
    actual, wanted = parameters_of(function).split(), OPERATORS[name].split()
    assert actual[: len(wanted)] == wanted
    for further in actual[len(wanted) :]:
        parameter = inspect.signature(function).parameters[further]
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty


def test_defaults_of_the_operators() -> None:
    def default(function: Any, name: str) -> Any:
        return inspect.signature(function).parameters[name].default

    assert default(ops.lstm_forward, "gate_order") == "ifgo"
    assert default(ops.lstm_forward, "recurrent_activation") == "sigmoid"
    assert default(ops.lstm_forward, "training") is True
    assert default(ops.gru_forward, "convention") == "book"
    assert default(ops.softmax_cross_entropy, "ignore_index") == -1
    assert default(ops.linear_cross_entropy, "memory") == "fast"
    assert default(ops.nce_loss, "remove_accidental_hits") is False
    assert default(ops.sampled_softmax_loss, "remove_accidental_hits") is True


@pytest.mark.parametrize("kind", ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"])
def test_updates_take_params_and_grads_first(kind: str) -> None:
    assert parameters_of(getattr(ops, f"{kind}_update")).startswith("params grads ")


def test_results_have_the_field_names_that_users_rely_on() -> None:
    fields = {
        contract.LSTMCellOutput: "h c tape",
        contract.LSTMCellGrads: "dx dh_prev dc_prev dWx dWh db",
        contract.LSTMOutput: "hs h_n c_n tape",
        contract.LSTMGrads: "dxs dWx dWh db dh0 dc0",
        contract.GRUCellOutput: "h tape",
        contract.GRUCellGrads: "dx dh_prev dWx dWh db",
        contract.GRUOutput: "hs h_n tape",
        contract.GRUGrads: "dxs dWx dWh db dh0",
        contract.RNNCellOutput: "h tape",
        contract.RNNCellGrads: "dx dh_prev dWx dWh db",
        contract.RNNOutput: "hs h_n tape",
        contract.RNNGrads: "dxs dWx dWh db dh0",
        contract.RowGrad: "indices values",
        contract.LossGrad: "loss dlogits",
        contract.SquaredErrorGrad: "loss dy",
        contract.LinearLossGrads: "loss dh dW db",
        contract.Candidates: "sampled true_expected_count sampled_expected_count num_tries",
        contract.SampledLogits: "logits labels tape",
        contract.SampledLogitsGrads: "dinputs dweights dbiases",
        contract.SampledLoss: "loss dinputs dweights dbiases",
        contract.SkipgramPairs: "centers contexts",
    }
    for result, names in fields.items():
        assert " ".join(result._fields) == names  # type: ignore[attr-defined]


def test_what_an_operator_does_follows_from_its_arguments() -> None:
    """Neither a thread nor a context nor a module says otherwise."""
    wrong = []
    for path in (SOURCE / "ops").glob("*.py"):
        names = imported_names(path, inside_functions=True)
        wrong += [f"{path.name} imports {name}" for name in names if name.split(".")[0] in {"threading", "contextvars"}]
        wrong += [f"{path.name}:{n.lineno}: global" for n in ast.walk(parsed(path)) if isinstance(n, ast.Global)]
    assert not wrong, "\n".join(wrong)


def test_what_an_operator_returns_follows_from_its_arguments() -> None:
    """Of two kinds of results, overloads say by an argument which one comes; and no cast says another than came."""
    kinds = {name for name, kind in vars(contract).items() if isinstance(kind, type) and issubclass(kind, tuple)}
    several = set()
    for name in ops.__all__:
        function = getattr(ops, name)
        if not inspect.isfunction(function):
            continue
        overloads = [inspect.signature(overload) for overload in typing.get_overloads(function)]
        returned = kinds.intersection(inspect.signature(function).return_annotation.split(" | "))
        if len(returned) > 1:
            several.add(name)
            told = {overload.return_annotation for overload in overloads if "Literal" in str(overload)}
            assert told == returned, f"{name} returns {returned}, but its overloads tell {told or 'nothing'}"
    assert "nce_loss" in several
    for path in (SOURCE / "ops").glob("*.py"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"cast", "typing.cast"}:
                named = kinds.intersection(re.findall(r"\w+", ast.unparse(node.args[0])))
                assert not named, f"{path.name}:{node.lineno} casts to {named}"


@pytest.mark.parametrize("module", [fastlstm, ops])
def test_every_public_name_exists_and_has_a_docstring(module: ModuleType) -> None:
    for name in module.__all__:
        value = getattr(module, name)
        assert value.__doc__ or name == "__version__", f"{module.__name__}.{name} has no docstring"


def test_public_names_of_the_package() -> None:
    wanted = (
        "__version__ set_backend get_backend use_backend available_backends set_num_threads get_num_threads show_config"
    )
    assert {*wanted.split(), "BackendNotAvailable", "free_unused_memory", "load", "synchronize"} == set(
        fastlstm.__all__
    )
    with pytest.raises(AttributeError, match="module 'fastlstm' has no attribute 'nothing'"):
        _ = fastlstm.nothing


def test_submodules_are_there_without_being_imported() -> None:
    for name in ("ops", "layers", "models", "optim", "callbacks", "datasets", "interop", "testing"):
        assert inspect.ismodule(getattr(fastlstm, name))


def test_what_operating_systems_call_differently_stands_in_one_header() -> None:
    kernels = Path(__file__).parents[1] / "csrc" / "cpu"
    if not kernels.exists():
        pytest.skip("the source tree is not beside the tests")
    files = [path for path in kernels.rglob("*") if path.suffix in (".cc", ".h") and path.name != "platform.h"]
    wrong = [
        path.name for path in files if re.search(r"pthread|aligned_alloc|posix_memalign|<malloc\.h>", path.read_text())
    ]
    assert files
    assert not wrong, (
        f"{wrong}: Windows has no pthread_atfork and other names for aligned memory; use those of platform.h"
    )


# --------------------------------------------------------------------------------------------
# Import
# --------------------------------------------------------------------------------------------


def in_a_process(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    ).stdout.strip()


def test_import_loads_nothing_heavy() -> None:
    heavy = "numba", "llvmlite", "matplotlib", "cupy", "onnx", "torch", "tqdm", "safetensors", "mpi4py"
    code = f"import sys, fastlstm; print(*(name for name in {heavy!r} if name in sys.modules))"
    assert in_a_process(code) == ""


def test_import_takes_less_than_a_fifth_of_a_second_beside_numpy() -> None:
    # The processor's time: other programs that run meanwhile do not count.
    code = "import time, numpy; start = time.process_time(); import fastlstm; print(time.process_time() - start)"
    assert min(float(in_a_process(code)) for _ in range(5)) < 0.2
