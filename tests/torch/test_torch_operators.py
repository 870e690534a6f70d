"""What PyTorch's compiler, its fake tensors and its exporters see of fastlstm.torch."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

import fastlstm.torch  # noqa: E402
from fastlstm.contract import TOLERANCE  # noqa: E402

pytestmark = [
    pytest.mark.needs_torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

nn = torch.nn
KINDS = ("LSTM", "GRU", "RNN")
N, T, D, H, V = 3, 4, 5, 6, 7


def arguments(kind: str, *, packed: bool = False, training: bool = True) -> tuple[Any, ...]:
    """Of the operator of a layer, in float64."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(training)

    weights = [draw(gates * H, D), draw(gates * H, H), draw(gates * H), draw(gates * H)]
    states = [draw(1, N, H) for _ in range(2 if kind == "LSTM" else 1)]
    batch_sizes = torch.tensor([3, 3, 1]) if packed else None
    data = draw(7, D) if packed else draw(N, T, D)
    return data, batch_sizes, weights, states, packed, not packed, None, training


@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_opcheck_of_layers(kind: str, packed: bool) -> None:
    operator = getattr(torch.ops.fastlstm, kind.lower()).default
    torch.library.opcheck(operator, arguments(kind, packed=packed))
    torch.library.opcheck(operator, arguments(kind, packed=packed, training=False))


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_derivative_of_an_operator_is_an_error(kind: str) -> None:
    args = arguments(kind)
    hs = getattr(torch.ops.fastlstm, kind.lower())(*args)[0]
    (dx,) = torch.autograd.grad(hs.sum(), args[0], create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        dx.sum().backward()


class Model(nn.Module):  # type: ignore[misc,name-defined]
    """Layers, both directions, dropout, and what stands around them in a model."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(V, D)
        self.recurrent = getattr(nn, kind)(D, H, batch_first=True, **options)
        self.output = nn.Linear(2 * H if options.get("bidirectional") else H, V)
        self.double()

    def forward(self, ids: Any) -> Any:
        hs, last = self.recurrent(self.embedding(ids).relu())
        state = last[0] if isinstance(last, tuple) else last
        return self.output(hs).log_softmax(-1).square().mean() + state.sin().mean()


def gradients(module: Any, *args: Any) -> dict[str, Any]:
    module.zero_grad()
    loss = module(*args)
    loss.backward()
    return {"loss": loss.detach(), **{name: parameter.grad for name, parameter in module.named_parameters()}}


def agree(got: dict[str, Any], want: dict[str, Any]) -> None:
    assert [name.removeprefix("_orig_mod.") for name in got] == list(want)
    for value, expected in zip(got.values(), want.values(), strict=True):
        assert float((value - expected).abs().max()) <= TOLERANCE["float64"] * max(1.0, float(expected.abs().max()))


ALL = {"num_layers": 2, "bidirectional": True}


@pytest.mark.parametrize(("kind", "options"), [("LSTM", ALL), ("GRU", {}), ("RNN", {})], ids=KINDS)
def test_compiled_without_a_graph_break(kind: str, options: dict[str, Any]) -> None:
    ids = torch.arange(N * T).reshape(N, T) % V
    want = gradients(Model(kind, **options), ids)
    ours = fastlstm.torch.replace(Model(kind, **options))
    torch._dynamo.reset()
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    agree(gradients(compiled, ids), want)
    # Another length, for which nothing but the shapes is new.
    longer = torch.arange(N * (T + 3)).reshape(N, T + 3) % V
    agree(gradients(compiled, longer), gradients(Model(kind, **options), longer))
    with torch.no_grad():
        assert torch.allclose(compiled(ids), want["loss"])


def test_autocast_compiles_too() -> None:
    ours: Any = fastlstm.torch.GRU(D, H)
    x = torch.linspace(-1, 1, T * N * D).reshape(T, N, D)
    torch._dynamo.reset()
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        want, got = ours(x)[0], compiled(x)[0]
    assert got.dtype is want.dtype
    assert float((got - want).detach().abs().max()) <= TOLERANCE["bf16"]
    got.sum().backward()
    assert ours.weight_ih_l0.grad.dtype is torch.float32


@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packed_sequences_compile_too(enforce_sorted: bool) -> None:
    class Packed(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.recurrent = nn.GRU(D, H, 2).double()

        def forward(self, packed: Any) -> Any:
            out, last = self.recurrent(packed)
            return out.data.square().sum() + last.sin().sum()

    lengths = [4, 3, 1] if enforce_sorted else [3, 1, 4]
    x = torch.linspace(-1, 1, T * N * D, dtype=torch.float64).reshape(T, N, D)
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)
    want = gradients(Packed(), packed)
    torch._dynamo.reset()
    compiled = torch.compile(fastlstm.torch.replace(Packed()), fullgraph=True, backend="aot_eager")
    agree(gradients(compiled, packed), want)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_by_inductor(kind: str) -> None:
    from torch._inductor import config

    ids = torch.arange(N * T).reshape(N, T) % V
    want = gradients(Model(kind), ids)
    torch._dynamo.reset()
    with config.patch(compile_threads=1):
        agree(gradients(torch.compile(fastlstm.torch.replace(Model(kind)), fullgraph=True), ids), want)


def test_the_compiler_takes_recurrent_modules() -> None:
    assert torch._dynamo.config.allow_rnn


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_without_memory(kind: str) -> None:
    ours = getattr(fastlstm.torch, kind)(D, H, 2, bidirectional=True)
    want = [(T, N, 2 * H), *[(4, N, H)] * (2 if kind == "LSTM" else 1)]
    for build in (_fake, _meta):
        hs, last = build(ours)
        assert [tuple(t.shape) for t in (hs, *(last if isinstance(last, tuple) else (last,)))] == want


def _fake(module: Any) -> Any:
    mode = torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        return module(torch.empty(T, N, D))


def _meta(module: Any) -> Any:
    return module.to("meta")(torch.empty(T, N, D, device="meta"))


def test_exported_models_are_torchs_own() -> None:
    """So that they run, and are converted, where this package is not."""
    ours = fastlstm.torch.replace(Model("LSTM"))
    ids = torch.arange(N * T).reshape(N, T) % V
    exported = torch.export.export(ours, (ids,))
    names = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert any("lstm" in name for name in names)
    assert not any("fastlstm" in name for name in names)
    assert torch.allclose(exported.module()(ids), Model("LSTM")(ids))


def test_transforms_of_functions_are_torchs_own() -> None:
    x = torch.linspace(-1, 1, T * N * D, dtype=torch.float64).reshape(T, N, D)
    found = []
    for module in (nn.GRU(D, H), fastlstm.torch.GRU(D, H)):
        module.double()
        torch.nn.init.constant_(module.weight_hh_l0, 0.1)
        for parameter in module.parameters():
            torch.nn.init.constant_(parameter, 0.1)
        found.append(torch.func.grad(lambda x, module=module: module(x)[0].sin().sum())(x))
    assert torch.allclose(*found)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("memory", ["fast", "low"])
def test_opcheck_of_the_linear_cross_entropy(memory: str, bias: bool) -> None:
    h, weight = torch.randn(N, T, H, dtype=torch.float64), torch.randn(V, H, dtype=torch.float64)
    b = torch.randn(V, dtype=torch.float64).requires_grad_() if bias else None
    targets = torch.arange(N * T).reshape(N, T) % V
    args = (h.requires_grad_(), weight.requires_grad_(), b, targets, -100, memory, None, [True, True, bias, False])
    torch.library.opcheck(torch.ops.fastlstm.linear_cross_entropy.default, args)
