"""The modules of fastlstm.torch against torch.nn's own, results and gradients, and in the company PyTorch keeps."""

from __future__ import annotations

import copy
import io
import pickle
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

import fastlstm.torch  # noqa: E402
from fastlstm.contract import TOLERANCE  # noqa: E402
from fastlstm.torch import modules  # noqa: E402

pytestmark = pytest.mark.needs_torch

nn = torch.nn
KINDS = ("LSTM", "GRU", "RNN")
N, T, D, H = 4, 6, 3, 5
LENGTHS = [6, 2, 5, 1]

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "no_bias": {"bias": False},
    "bidirectional": {"bidirectional": True},
    "two_layers": {"num_layers": 2, "batch_first": True},
    "all": {"num_layers": 2, "bidirectional": True},
}
INPUTS = ("batch", "one", "sorted", "unsorted", "even")


def pair(kind: str, dtype: Any = torch.float64, **options: Any) -> tuple[Any, Any]:
    """Ours and torch.nn's, with the same weights."""
    torch.manual_seed(0)
    theirs = getattr(nn, kind)(D, H, dtype=dtype, **options)
    ours = getattr(fastlstm.torch, kind)(D, H, dtype=dtype, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def inputs_of(module: Any, what: str, *, with_states: bool, requires_grad: bool = True) -> tuple[Any, Any, list[Any]]:
    """An input and states for a module, and the tensors among them that have gradients."""
    generator = torch.Generator().manual_seed(1)
    dtype = module.weight_ih_l0.dtype

    def draw(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_(requires_grad)

    count = module.num_layers * (2 if module.bidirectional else 1)
    shape: tuple[int, ...] = (N, T, D) if module.batch_first else (T, N, D)
    of_state: tuple[int, ...] = (count, N, H)
    if what == "one":
        shape, of_state = (T, D), (count, H)
    data = draw(*shape)
    states = [draw(*of_state) for _ in range(2 if isinstance(module, nn.LSTM) else 1)]
    hx = (tuple(states) if len(states) == 2 else states[0]) if with_states else None
    leaves = [data, *states] if with_states else [data]
    if what in ("batch", "one"):
        return data, hx, leaves
    lengths = {"sorted": sorted(LENGTHS, reverse=True), "unsorted": LENGTHS, "even": [T] * N}[what]
    packed = nn.utils.rnn.pack_padded_sequence(
        data, torch.tensor(lengths), batch_first=module.batch_first, enforce_sorted=what != "unsorted"
    )
    return packed, hx, leaves


def flat(output: Any) -> list[Any]:
    """The tensors of a result."""
    result, last = output
    data = result.data if isinstance(result, nn.utils.rnn.PackedSequence) else result
    return [data, *(last if isinstance(last, tuple) else (last,))]


def loss_of(results: list[Any]) -> Any:
    """A number on which every element of every result has an influence of its own."""
    generator = torch.Generator().manual_seed(2)
    return sum(
        (result * torch.randn(result.shape, generator=generator, dtype=result.dtype)).sum() for result in results
    )


def results_of(module: Any, what: str = "batch", *, with_states: bool = True) -> dict[str, Any]:
    input, hx, leaves = inputs_of(module, what, with_states=with_states)  # noqa: A001
    module.zero_grad()
    results = flat(module(input, hx))
    loss_of(results).backward()
    named = {f"result {k}": result.detach() for k, result in enumerate(results)}
    named |= {f"d input {k}": leaf.grad for k, leaf in enumerate(leaves)}
    return named | {f"d {name}": parameter.grad for name, parameter in module.named_parameters()}


def agree(got: dict[str, Any], want: dict[str, Any]) -> None:
    assert got.keys() == want.keys()
    for name, expected in want.items():
        if expected is None:
            assert got[name] is None, name
            continue
        assert got[name].shape == expected.shape, name
        assert got[name].dtype == expected.dtype, name
        if expected.numel():
            limit = TOLERANCE[str(expected.dtype).removeprefix("torch.")] * max(
                1.0, float(expected.detach().abs().max())
            )
            assert float((got[name] - expected).detach().abs().max()) <= limit, name


# --------------------------------------------------------------------------------------------
# The same numbers
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_states", [True, False], ids=["states", "zeros"])
@pytest.mark.parametrize("what", INPUTS)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_results_and_gradients_are_those_of_torch(kind: str, options: str, what: str, with_states: bool) -> None:
    ours, theirs = pair(kind, **OPTIONS[options])
    agree(results_of(ours, what, with_states=with_states), results_of(theirs, what, with_states=with_states))


@pytest.mark.parametrize("what", ["batch", "unsorted"])
@pytest.mark.parametrize("kind", KINDS)
def test_in_float32(kind: str, what: str) -> None:
    ours, theirs = pair(kind, torch.float32, **OPTIONS["all"])
    agree(results_of(ours, what), results_of(theirs, what))


@pytest.mark.parametrize("kind", KINDS)
def test_without_gradients(kind: str) -> None:
    ours, theirs = pair(kind, **OPTIONS["all"])
    input, hx, _ = inputs_of(ours, "batch", with_states=True, requires_grad=False)  # noqa: A001
    want = flat(theirs(input, hx))
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            got = flat(ours(input, hx))
        assert not any(result.requires_grad for result in got)
        agree(dict(enumerate(got)), dict(enumerate(want)))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(0, 3), (3, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_small_batches(kind: str, size: tuple[int, int]) -> None:
    rows, steps = size
    ours, theirs = pair(kind)
    found = []
    for module in (ours, theirs):
        x = torch.linspace(-1, 1, steps * rows * D, dtype=torch.float64).reshape(steps, rows, D).requires_grad_()
        results = flat(module(x))
        loss_of(results).backward()
        found.append(dict(enumerate([*results, x.grad, module.weight_hh_l0.grad])))
    agree(*found)  # type: ignore[arg-type]


@pytest.mark.parametrize("frozen", ["input", "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "all weights"])
@pytest.mark.parametrize("kind", KINDS)
def test_frozen_tensors_get_no_gradient(kind: str, frozen: str) -> None:
    found = []
    for module in pair(kind):
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(frozen not in (name, "all weights"))
        x = torch.ones(T, N, D, dtype=torch.float64, requires_grad=frozen != "input")
        loss_of(flat(module(x))).backward()
        found.append({"x": x.grad} | {name: parameter.grad for name, parameter in module.named_parameters()})
    agree(*found)


@pytest.mark.parametrize("used", [0, 1], ids=["output", "h_n"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_of_one_result(kind: str, used: int) -> None:
    found = []
    for module in pair(kind):
        x = torch.ones(T, N, D, dtype=torch.float64, requires_grad=True)
        flat(module(x))[used].sum().backward()
        found.append({"x": x.grad, "weight": module.weight_hh_l0.grad})
    agree(*found)


@pytest.mark.parametrize("batch_first", [False, True])
def test_dropout_draws_the_same_masks(batch_first: bool) -> None:
    found = []
    for module in pair("LSTM", num_layers=3, dropout=0.5, batch_first=batch_first):
        torch.manual_seed(7)
        found.append(results_of(module))
        module.eval()
        found[-1]["eval"] = module(torch.ones(T, N, D, dtype=torch.float64))[0].detach()
    agree(*found)


def test_any_strides() -> None:
    found = []
    for module in pair("GRU", batch_first=True):
        wide = torch.linspace(-1, 1, 2 * T * N * D, dtype=torch.float64).requires_grad_()
        hs = flat(module(wide.reshape(T, N, 2 * D)[..., ::2].transpose(0, 1)))[0]
        hs.transpose(0, 1).flip(0).square().sum().backward()
        found.append({"dx": wide.grad, "dWh": module.weight_hh_l0.grad})
    agree(*found)


def test_gradients_add_up_and_become_grad_without_a_copy() -> None:
    ours, theirs = pair("LSTM")
    x = torch.ones(T, N, D, dtype=torch.float64)
    for module in (ours, theirs):
        for _ in range(2):
            loss_of(flat(module(x))).backward()
    agree({"sum": ours.weight_ih_l0.grad}, {"sum": theirs.weight_ih_l0.grad})

    weight = ours.weight_ih_l0
    weight.grad = None
    made: list[int] = []
    weight.register_hook(lambda grad: made.append(grad.data_ptr()))
    loss_of(flat(ours(x))).backward()
    assert weight.grad.data_ptr() == made[0]
    assert weight.grad.stride() == weight.stride()
    assert ours.bias_ih_l0.grad.data_ptr() != ours.bias_hh_l0.grad.data_ptr()


@pytest.mark.parametrize("what", ["batch", "unsorted"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind: str, what: str) -> None:
    ours, _ = pair(kind, bidirectional=True)
    input, hx, leaves = inputs_of(ours, what, with_states=True)  # noqa: A001
    names, parameters = zip(*ours.named_parameters(), strict=True)

    def run(*tensors: Any) -> Any:
        data, *states = tensors[: len(leaves)]
        if what != "batch":
            data = input._replace(data=nn.utils.rnn.pack_padded_sequence(data, LENGTHS, enforce_sorted=False).data)
        hx = tuple(states) if len(states) == 2 else states[0]
        named = dict(zip(names, tensors[len(leaves) :], strict=True))
        return tuple(flat(torch.func.functional_call(ours, named, (data, hx))))

    assert torch.autograd.gradcheck(run, (*leaves, *parameters), fast_mode=True)


# --------------------------------------------------------------------------------------------
# What is wrong, and what is not ours
# --------------------------------------------------------------------------------------------


WRONG: dict[str, Callable[[Any], Any]] = {
    "four axes": lambda m: m(torch.ones(1, T, N, D)),
    "input size": lambda m: m(torch.ones(T, N, D + 1)),
    "dtype": lambda m: m(torch.ones(T, N, D, dtype=torch.float64)),
    "no steps": lambda m: m(torch.ones(0, N, D)),
    "states of another batch": lambda m: m(torch.ones(T, N, D), states(m, torch.ones(1, N + 1, H))),
    "states of another width": lambda m: m(torch.ones(T, N, D), states(m, torch.ones(1, N, H + 1))),
    "states without a batch": lambda m: m(torch.ones(T, N, D), states(m, torch.ones(1, H))),
    "states with a batch": lambda m: m(torch.ones(T, D), states(m, torch.ones(1, N, H))),
    "states of another dtype": lambda m: m(torch.ones(T, N, D), states(m, torch.ones(1, N, H, dtype=torch.float64))),
    "one state in a tuple": lambda m: m(torch.ones(T, N, D), (torch.ones(1, N, H),)),
    "a list": lambda m: m([1.0, 2.0]),
}


def states(module: Any, state: Any) -> Any:
    return (state, state) if isinstance(module, nn.LSTM) else state


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_those_of_torch(kind: str, wrong: str) -> None:
    raised = []
    for module in pair(kind, torch.float32):
        with pytest.raises(Exception, match=".") as error:
            WRONG[wrong](module)
        raised.append((error.type, str(error.value)))
    assert raised[0] == raised[1]


@pytest.fixture
def _nothing_said_yet() -> Iterator[None]:
    said = set(modules._warned)
    modules._warned.clear()
    yield
    modules._warned.update(said)


@pytest.mark.filterwarnings("ignore:LSTM with projections")  # PyTorch's own
@pytest.mark.usefixtures("_nothing_said_yet")
@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("LSTM", {"proj_size": 2}, "proj_size=2"),
        ("RNN", {"nonlinearity": "relu"}, "nonlinearity='relu'"),
        ("GRU", {"dtype": torch.bfloat16}, "dtype torch.bfloat16"),
    ],
)
def test_what_we_do_not_have_goes_torchs_way_with_one_warning(kind: str, options: Any, reason: str) -> None:
    ours, theirs = pair(kind, **{"dtype": torch.float32, **options})
    x = torch.ones(T, N, D, dtype=ours.weight_ih_l0.dtype)
    with pytest.warns(RuntimeWarning, match=reason) as said:
        twice = [flat(ours(x)) for _ in range(2)]
    (ours_said,) = (warning for warning in said if warning.category is RuntimeWarning)
    assert ours_said.filename == __file__
    for result, want in zip(twice[0], flat(theirs(x)), strict=True):
        assert torch.equal(result, want)


def test_a_second_derivative_is_an_error_and_not_zero() -> None:
    ours, _ = pair("LSTM")
    x = torch.ones(T, N, D, dtype=torch.float64, requires_grad=True)
    (dx,) = torch.autograd.grad(ours(x)[0].sum(), x, create_graph=True)
    assert dx.requires_grad
    with pytest.raises(RuntimeError, match=r"fastlstm.torch.LSTM has no second derivative"):
        (dx.square().sum() + ours(x)[0].sum()).backward()


@pytest.mark.parametrize("kind", KINDS)
def test_changed_weights_are_noticed(kind: str) -> None:
    ours, _ = pair(kind)
    hs = ours(torch.ones(T, N, D, dtype=torch.float64))[0]
    with torch.no_grad():
        ours.weight_hh_l0.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        hs.sum().backward()


# Numba takes a minute to compile what test_backends.py checks anyway.
@pytest.mark.parametrize("name", [name for name in fastlstm.available_backends() if name in ("cpp", "numpy")])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_may_be_changed(kind: str, name: str) -> None:
    """By an activation or a dropout in place, for instance."""
    ours, theirs = pair(kind)
    found = []
    with fastlstm.use_backend(name):
        for module in (ours, theirs):
            x = torch.ones(T, N, D, dtype=torch.float64, requires_grad=True)
            results = flat(module(x))
            changed = [result.mul_(2) if module is ours else 2 * result for result in results]
            loss_of(changed).backward()
            found.append({"dx": x.grad, "dWh": module.weight_hh_l0.grad})
    agree(*found)


# --------------------------------------------------------------------------------------------
# Modules as PyTorch's users have them
# --------------------------------------------------------------------------------------------


class Model(nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, D)
        self.encoder = nn.Sequential(nn.Linear(D, D), nn.LSTM(D, H, 2, batch_first=True, bidirectional=True))
        self.parts = nn.ModuleList([nn.GRU(2 * H, H, batch_first=True), nn.RNN(H, H, batch_first=True)])
        self.relu = nn.RNN(H, H, nonlinearity="relu", batch_first=True)
        self.output = nn.Linear(H, 2)

    def forward(self, ids: Any) -> Any:
        x = self.encoder(self.embedding(ids))[0]
        for part in (*self.parts, self.relu):
            x = part(x)[0]
        return self.output(x[:, -1])


def model() -> Any:
    torch.manual_seed(3)
    return Model()


IDS = torch.arange(N * T).reshape(N, T) % 11


def gradients(module: Any) -> dict[str, Any]:
    module.zero_grad()
    out = module(IDS)
    loss_of([out]).backward()
    return {"out": out.detach(), **{name: parameter.grad for name, parameter in module.named_parameters()}}


def test_replace() -> None:
    theirs, ours = model(), model()
    replace: Any = fastlstm.torch.replace
    calls: list[str] = []
    ours.parts[0].register_forward_hook(lambda *_: calls.append("forward"))
    parameters, before = list(ours.parameters()), dict(ours.state_dict())
    assert replace(ours) is ours
    assert [type(part) for part in (ours.encoder[1], *ours.parts, ours.relu)] == [
        fastlstm.torch.LSTM, fastlstm.torch.GRU, fastlstm.torch.RNN, nn.RNN,
    ]  # fmt: skip
    assert all(after is parameter for after, parameter in zip(ours.parameters(), parameters, strict=True))
    assert list(ours.state_dict()) == list(before)
    agree(gradients(ours), gradients(theirs))
    assert calls == ["forward"]
    alone = nn.LSTM(D, H)
    assert replace(alone) is alone
    assert isinstance(alone, fastlstm.torch.LSTM)
    assert isinstance(alone, nn.LSTM)
    with pytest.raises(TypeError, match=r"module is list, expected a torch.nn.Module"):
        replace([alone])


def test_copies_and_files() -> None:
    ours = fastlstm.torch.replace(model())
    want = gradients(ours)
    agree(gradients(copy.deepcopy(ours)), want)
    agree(gradients(pickle.loads(pickle.dumps(ours))), want)
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    agree(gradients(torch.load(file, weights_only=False)), want)


def test_state_dicts_go_both_ways() -> None:
    ours, theirs = fastlstm.torch.replace(model()), Model()
    theirs.load_state_dict(ours.state_dict())
    again = fastlstm.torch.replace(Model())
    again.load_state_dict(theirs.state_dict())
    agree(gradients(again), gradients(theirs))


def test_parametrizations_and_functional_call() -> None:
    found = []
    for module in pair("LSTM"):
        nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
        x = torch.ones(T, N, D, dtype=torch.float64)
        loss_of(flat(module(x))).backward()
        named = {name: parameter.grad for name, parameter in module.named_parameters()}
        others = {name: 0.5 * parameter for name, parameter in module.named_parameters()}
        found.append(named | {"called": torch.func.functional_call(module, others, (x,))[0].detach()})
    agree(*found)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpoints(use_reentrant: bool) -> None:
    found = []
    for module in pair("GRU"):
        x = torch.ones(T, N, D, dtype=torch.float64, requires_grad=True)
        hs, last = torch.utils.checkpoint.checkpoint(module, x, use_reentrant=use_reentrant)
        loss_of([hs, last]).backward()
        found.append({"dx": x.grad, "dWh": module.weight_hh_l0.grad})
    agree(*found)


def test_a_tape_lives_no_longer_than_what_autograd_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastlstm.torch import recurrence, tensors

    class Record(list[Any]):
        """One that can be referred to weakly."""

    def keep(record: Any) -> Any:
        watched = Record(record)
        made.append(weakref.ref(watched))
        return tensors.keep(watched)

    def alive() -> int:
        return sum(reference() is not None for reference in made)

    made: list[weakref.ref[Any]] = []
    monkeypatch.setattr(recurrence, "keep", keep)
    ours, _ = pair("LSTM")
    x = torch.ones(T, N, D, dtype=torch.float64, requires_grad=True)
    hs = ours(x)[0]
    assert alive() == 1
    hs.sum().backward()
    assert alive() == 0
    hs = torch.utils.checkpoint.checkpoint(ours, x, use_reentrant=False)[0]
    assert alive() == 0
    hs.sum().backward()
    assert alive() == 0


def test_derivatives_forward_are_torchs_own() -> None:
    found = []
    for module in pair("RNN"):
        x = torch.linspace(-1, 1, T * N * D, dtype=torch.float64).reshape(T, N, D)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
            found.append({"tangent": torch.autograd.forward_ad.unpack_dual(module(dual)[0]).tangent.detach()})
    agree(*found)


def test_symbolic_traces_take_modules_as_they_are() -> None:
    ours, theirs = pair("LSTM")
    model = nn.Sequential()
    model.add_module("lstm", ours)
    traced = torch.fx.symbolic_trace(model)
    assert [node.op for node in traced.graph.nodes] == ["placeholder", "call_module", "output"]
    x = torch.ones(T, N, D, dtype=torch.float64)
    agree({"hs": traced(x)[0].detach()}, {"hs": theirs(x)[0].detach()})


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpoints_run_forward_twice(use_reentrant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once without keeping anything, and once for the gradients: what that keeps is found."""
    from fastlstm.torch import recurrence

    calls: list[str] = []
    before = recurrence._forward

    def forward(*args: Any, **options: Any) -> Any:
        calls.append("forward")
        return before(*args, **options)

    monkeypatch.setattr(recurrence, "_forward", forward)
    ours, _ = pair("LSTM")
    x = torch.ones(T, N, D, dtype=torch.float64, requires_grad=True)
    torch.utils.checkpoint.checkpoint(ours, x, use_reentrant=use_reentrant)[0].sum().backward()
    assert len(calls) == 2


def test_saved_tensors_that_come_back_as_copies() -> None:
    ours, theirs = pair("LSTM")
    want = results_of(theirs)
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved.clone(), lambda saved: saved):
        agree(results_of(ours), want)


def test_backward_twice_and_from_another_thread() -> None:
    ours, theirs = pair("LSTM")
    x = torch.ones(T, N, D, dtype=torch.float64)
    for module in (ours, theirs):
        loss = loss_of(flat(module(x)))
        loss.backward(retain_graph=True)
        thread = threading.Thread(target=loss.backward)
        thread.start()
        thread.join()
    agree({"dWh": ours.weight_hh_l0.grad}, {"dWh": theirs.weight_hh_l0.grad})


def test_many_threads_at_once() -> None:
    want = results_of(pair("LSTM")[1])
    found: list[dict[str, Any]] = []
    workers = [pair("LSTM")[0] for _ in range(4)]
    threads = [
        threading.Thread(target=lambda module=module: found.append([results_of(module) for _ in range(5)][-1]))
        for module in workers
    ]
    before = torch.get_num_threads()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(workers)
    for got in found:
        agree(got, want)
    assert torch.get_num_threads() == before


class _Rows(torch.utils.data.Dataset):  # type: ignore[misc,name-defined]
    """A data set that runs a module of ours for every item."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __len__(self) -> int:
        return 4

    def __getitem__(self, k: int) -> Any:
        with torch.no_grad():
            return self.module(torch.full((T, D), float(k), dtype=torch.float64))[0]


def test_forked_workers_of_a_data_loader() -> None:
    ours, theirs = pair("LSTM")
    results_of(ours)  # our threads run before the fork
    loader = torch.utils.data.DataLoader(_Rows(ours), num_workers=2, multiprocessing_context="fork", timeout=60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of processes with threads that fork
        got = torch.cat(list(loader))
    agree({"hs": got}, {"hs": torch.stack([_Rows(theirs)[k] for k in range(4)])})
    results_of(ours)


# A DistributedDataParallel that goes right after its last backward can hang in PyTorch 2.13: with the GIL it waits for
# a thread that waits for the GIL.
_kept: list[Any] = []


def test_data_parallel_and_distributed(tmp_path: Any) -> None:
    ours, theirs = fastlstm.torch.replace(model()), model()
    want = gradients(theirs)
    agree({"out": nn.DataParallel(ours)(IDS).detach()}, {"out": want["out"]})
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(ours)
        _kept.append(parallel)
        got = gradients(parallel)
    finally:
        torch.distributed.destroy_process_group()
    agree({name.removeprefix("module."): value for name, value in got.items()}, want)


@pytest.mark.parametrize("of_states", [None, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("of_input", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("what", ["batch", "unsorted"])
@pytest.mark.parametrize("kind", KINDS)
def test_autocast_returns_the_dtypes_of_torch(kind: str, what: str, of_input: Any, of_states: Any) -> None:
    ours, theirs = pair(kind, torch.float32, num_layers=2)
    input, hx, _ = inputs_of(ours, what, with_states=of_states is not None, requires_grad=False)  # noqa: A001
    exact = flat(theirs(input, hx))
    input = input._replace(data=input.data.to(of_input)) if what == "unsorted" else input.to(of_input)  # noqa: A001
    hx = (
        tuple(state.to(of_states) for state in hx)
        if isinstance(hx, tuple)
        else hx.to(of_states)
        if hx is not None
        else None
    )
    with torch.autocast("cpu", torch.bfloat16):
        try:
            dtype = flat(theirs(input, hx))[0].dtype
        except RuntimeError:  # oneDNN has bf16 on some processors only
            dtype = torch.bfloat16
        got = flat(ours(input, hx))
    loss_of(got).backward()
    for result, want in zip(got, exact, strict=True):
        assert result.dtype is dtype
        assert float((result.float() - want).detach().abs().max()) <= TOLERANCE["bf16"]
    assert ours.weight_hh_l0.grad.dtype is torch.float32
