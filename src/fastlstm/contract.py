"""Read this first: the letters, gate orders, result types, tolerances and the backend protocol.

Letters, in code, docstrings and errors alike::

    N  batch            D  input width        E  embedding width
    T  time steps       H  hidden width       S  sampled classes
    V  vocabulary size  M  rows: any number of leading axes, flattened

Data flows one way, and so do imports::

    models -> training -> layers -> ops -> backends -> csrc
    compose   repeat      remember  check  compute     compiled kernels

``ops`` check every shape, dtype and id once, for all backends; backends trust what they get.
A backend is a package below ``fastlstm.backends`` with one module per operator family (``lstm``,
``gru``, ``rnn``, ``embedding``, ``dense``, ``dropout``, ``losses``, ``sampling``, ``skipgram``, ``optim``); each module
has the functions of the protocol of that family at the end of this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

# numpy.ndarray, or cupy.ndarray with the same meaning on a GPU.
Array: TypeAlias = "NDArray[Any]"
FloatArray: TypeAlias = "NDArray[np.floating[Any]]"
IntArray: TypeAlias = "NDArray[np.signedinteger[Any]]"
BoolArray: TypeAlias = "NDArray[np.bool_]"


class BackendNotAvailable(ImportError):
    """A backend was asked for that cannot run here; the message says why and what to install."""


# --------------------------------------------------------------------------------------------
# Gates
# --------------------------------------------------------------------------------------------

# i input gate, f forget gate, g candidate, o output gate. Blocks of H columns stand in this order.
GATES = "ifgo"
DEFAULT_GATE_ORDER = "ifgo"  # Keras and PyTorch
BOOK_GATE_ORDER = "fgio"  # "Deep Learning from Scratch 2"
THEANO_GATE_ORDER = "ifog"  # Theano's LSTM tutorial
ONNX_GATE_ORDER = "iofg"

RecurrentActivation: TypeAlias = Literal["sigmoid", "hard_sigmoid"]
RECURRENT_ACTIVATIONS: tuple[RecurrentActivation, ...] = ("sigmoid", "hard_sigmoid")


class GRUConvention(NamedTuple):
    """How a GRU is written down. z update gate, r reset gate, n candidate.

    gate_order : blocks of H columns stand in this order.
    reset_after : r is applied after the product with Wh, n = tanh(x Wxn + bxn + r (h_prev Whn + bhn)), with two biases,
        b (2, 3H): of the inputs and of the state. Else before it, n = tanh(x Wxn + (r h_prev) Whn + bn), with b (3H,).
    z_keeps : h = z h_prev + (1 - z) n. Else h = (1 - z) h_prev + z n.
    """

    gate_order: str
    reset_after: bool
    z_keeps: bool


GRUConventionName: TypeAlias = Literal["book", "pytorch", "keras"]
GRU_CONVENTIONS: dict[GRUConventionName, GRUConvention] = {
    # "Deep Learning from Scratch 2", appendix C; Chung et al. (2014)
    "book": GRUConvention("zrn", reset_after=False, z_keeps=False),
    # PyTorch and cuDNN; b is numpy.stack([bias_ih, bias_hh])
    "pytorch": GRUConvention("rzn", reset_after=True, z_keeps=True),
    # Keras 2 and later, reset_after=True
    "keras": GRUConvention("zrn", reset_after=True, z_keeps=True),
}

# What a loss makes of the losses of its rows: their mean over those that count, or their sum.
Reduction: TypeAlias = Literal["mean", "sum"]

# In what precision products are made. The exact ones are those of the arrays' dtype; "tf32" and "bf16" round the
# factors of float32 products, while sums, states, gates and all results stay float32. "bf16" rounds to nearest, ties to
# even (`backends.numpy.dense`): a and b of a dense product; h and W, dlogits and W, h and dlogits in the three products
# of `linear_cross_entropy`; x and Wx, h and Wh of a recurrent step (r h with the GRU's reset gate before the product)
# and, with the gradients dA of its pre-activations, dA and Wx, dA and Wh, x and dA, h and dA, but not dA in db's sums.
# "tf32" is for arrays on a GPU, where products outside of the recurrence run in it for "bf16" too.
Precision: TypeAlias = Literal["float32", "float64", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float64", "tf32", "bf16")

# --------------------------------------------------------------------------------------------
# Results
# --------------------------------------------------------------------------------------------


# What a backend keeps of a forward call: a record of its own, which nobody else looks into.
Saved: TypeAlias = Any

Family = TypeVar("Family")


class Tape(Generic[Family]):
    """What a forward call keeps for its backward call. Opaque: only the backend that made it can read it.

    Attributes
    ----------
    op : str
        The operator that made it: "lstm_cell", "lstm", "gru" ...
    family : module
        The module of the backend that made it, for instance ``fastlstm.backends.cpp.lstm``.
    sizes : dict
        The letters' values, for the checks of the backward call.
    dtype : numpy dtype
    saved : object
        The backend's own record.
    device : int or None
        The GPU that the arrays live on; None is the host.
    inputs : dict
        By name, the arrays of the forward call that the backward call may read; None where none was given.
    time_major : bool
        Whether time is the first axis of the caller's sequences.
    """

    __slots__ = ("device", "dtype", "family", "inputs", "op", "saved", "sizes", "time_major")

    def __init__(
        self,
        op: str,
        family: Family,
        sizes: dict[str, int],
        dtype: np.dtype[Any],
        saved: Saved,
        device: int | None = None,
        inputs: dict[str, FloatArray | None] | None = None,
        time_major: bool = False,
    ) -> None:
        self.op = op
        self.family = family
        self.sizes = sizes
        self.dtype = dtype
        self.saved = saved
        self.device = device
        self.inputs = {} if inputs is None else inputs
        self.time_major = time_major

    def __repr__(self) -> str:
        sizes = ", ".join(f"{letter}={size}" for letter, size in self.sizes.items())
        return f"<tape of {self.op} made by {vars(self.family)['__name__']}: {sizes}, {self.dtype}>"


class PreparedWeights(Generic[Family]):
    """A snapshot of a layer's weights, as the kernels of one backend read them.

    Attributes
    ----------
    op : str
        Whose weights they are: "lstm", "gru", "rnn" or "dense".
    family : module
        The module of the backend that made it.
    columns : int
        Of the inputs: D, or those of the pre-activations where there is no Wx.
    H : int
        Columns of the results.
    dtype : numpy dtype
    arguments : tuple
        What the family's forward function takes in place of Wx, Wh and b, or of b and bias.
    device : int or None
        The GPU that they live on; None is the host.
    gates : str, GRUConvention or None
        The LSTM's gate order, the GRU's convention; others have none.
    precision : str
        Of the products.
    """

    __slots__ = ("H", "arguments", "columns", "device", "dtype", "family", "gates", "op", "precision")

    def __init__(
        self,
        op: str,
        family: Family,
        columns: int,
        H: int,
        dtype: np.dtype[Any],
        arguments: tuple[Any, ...],
        device: int | None,
        gates: Any,
        precision: Precision,
    ) -> None:
        self.op = op
        self.family = family
        self.columns = columns
        self.H = H
        self.dtype = dtype
        self.arguments = arguments
        self.device = device
        self.gates = gates
        self.precision = precision

    def __repr__(self) -> str:
        return f"<prepared weights of {self.op}: {self.columns} columns, H={self.H}, {self.dtype}>"


class LSTMCellOutput(NamedTuple):
    """h, c: (N, H)."""

    h: FloatArray
    c: FloatArray
    tape: Tape[LSTMFamily]


# Gradients have the shapes of their inputs; None are those of inputs that are None (Wx, b), and what ``without`` names.
class LSTMCellGrads(NamedTuple):
    """dx (N, D); dh_prev, dc_prev (N, H); dWx (D, 4H); dWh (H, 4H); db (4H,)."""

    dx: FloatArray
    dh_prev: FloatArray
    dc_prev: FloatArray
    dWx: FloatArray
    dWh: FloatArray
    db: FloatArray


class LSTMOutput(NamedTuple):
    """hs (N, T, H), or (T, N, H) of a time_major call; h_n, c_n (N, H); tape is None when training=False."""

    hs: FloatArray
    h_n: FloatArray
    c_n: FloatArray
    tape: Tape[LSTMFamily] | None


class LSTMGrads(NamedTuple):
    """dxs as xs; dWx (D, 4H); dWh (H, 4H); db (4H,); dh0, dc0 (N, H)."""

    dxs: FloatArray
    dWx: FloatArray
    dWh: FloatArray
    db: FloatArray
    dh0: FloatArray
    dc0: FloatArray


class GRUCellOutput(NamedTuple):
    """h: (N, H)."""

    h: FloatArray
    tape: Tape[GRUFamily]


class GRUCellGrads(NamedTuple):
    """dx (N, D); dh_prev (N, H); dWx (D, 3H); dWh (H, 3H); db of the shape of b."""

    dx: FloatArray
    dh_prev: FloatArray
    dWx: FloatArray
    dWh: FloatArray
    db: FloatArray


class GRUOutput(NamedTuple):
    """hs (N, T, H), or (T, N, H) of a time_major call; h_n (N, H); tape is None when training=False."""

    hs: FloatArray
    h_n: FloatArray
    tape: Tape[GRUFamily] | None


class GRUGrads(NamedTuple):
    """dxs as xs; dWx (D, 3H); dWh (H, 3H); db of the shape of b; dh0 (N, H)."""

    dxs: FloatArray
    dWx: FloatArray
    dWh: FloatArray
    db: FloatArray
    dh0: FloatArray


class RNNCellOutput(NamedTuple):
    """h: (N, H)."""

    h: FloatArray
    tape: Tape[RNNFamily]


class RNNCellGrads(NamedTuple):
    """dx (N, D); dh_prev (N, H); dWx (D, H); dWh (H, H); db (H,)."""

    dx: FloatArray
    dh_prev: FloatArray
    dWx: FloatArray
    dWh: FloatArray
    db: FloatArray


class RNNOutput(NamedTuple):
    """hs (N, T, H), or (T, N, H) of a time_major call; h_n (N, H); tape is None when training=False."""

    hs: FloatArray
    h_n: FloatArray
    tape: Tape[RNNFamily] | None


class RNNGrads(NamedTuple):
    """dxs as xs; dWx (D, H); dWh (H, H); db (H,); dh0 (N, H)."""

    dxs: FloatArray
    dWx: FloatArray
    dWh: FloatArray
    db: FloatArray
    dh0: FloatArray


class RowGrad(NamedTuple):
    """A gradient that touches few rows: dW[indices[u]] = values[u], all other rows zero.

    indices : (U,), ascending and unique, of the ids' dtype (int64 in the sampling family). values : (U, E), or (U,)
    where W is a vector.

    On a GPU their number U is known to the device only, so the call that returns a RowGrad waits once, after it has
    launched all its work.
    """

    indices: IntArray
    values: FloatArray


class PaddedRowGrad(NamedTuple):
    """A RowGrad on a GPU for which nobody has waited: how many rows it has, only the device knows.

    indices : (M,). values : (M, E), or (M,). Both as in `RowGrad` in their first ``num_rows`` rows, undefined beyond.
    num_rows : (1,) int32.
    """

    indices: IntArray
    values: FloatArray
    num_rows: IntArray


class LossGrad(NamedTuple):
    """loss: Python float, on a GPU a 0-d float64 array, of which float(loss) waits for the device; dlogits: of the
    logits' shape.
    """

    loss: float
    dlogits: FloatArray


class SquaredErrorGrad(NamedTuple):
    """loss: as in `LossGrad`; dy: of the outputs' shape."""

    loss: float
    dy: FloatArray


class LinearLossGrads(NamedTuple):
    """loss: as in `LossGrad`; dh (..., H); dW (H, V); db (V,). None what ``without`` names, and db without b."""

    loss: float
    dh: FloatArray
    dW: FloatArray
    db: FloatArray


class Candidates(NamedTuple):
    """One sample of classes, shared by a batch.

    sampled : (S,) int64. true_expected_count, of the true classes' shape, and sampled_expected_count (S,): float64, how
    often each class is expected in such a sample. num_tries : draws it took, S if repeats are allowed; on a GPU a 0-d
    array, which int() waits for.
    """

    sampled: IntArray
    true_expected_count: FloatArray
    sampled_expected_count: FloatArray
    num_tries: int


class SampledLogits(NamedTuple):
    """logits, labels: (B, num_true + S), the true classes' columns first."""

    logits: FloatArray
    labels: FloatArray
    tape: Tape[SamplingFamily]


class SampledLogitsGrads(NamedTuple):
    """dinputs (B, E); dweights rows of (V, E); dbiases rows of (V,)."""

    dinputs: FloatArray
    dweights: RowGrad
    dbiases: RowGrad


class SampledLoss(NamedTuple):
    """loss (B,), and the gradients of its mean: dinputs (B, E), dweights rows of (V, E), dbiases rows of (V,).

    dbiases is None for a loss without biases.
    """

    loss: FloatArray
    dinputs: FloatArray
    dweights: RowGrad
    dbiases: RowGrad | None


class PaddedSampledLoss(NamedTuple):
    """A SampledLoss on a GPU for which nobody has waited."""

    loss: FloatArray
    dinputs: FloatArray
    dweights: PaddedRowGrad
    dbiases: PaddedRowGrad | None


class SkipgramPairs(NamedTuple):
    """centers, contexts: (M,) int64; a word and one of its neighbours."""

    centers: IntArray
    contexts: IntArray


class Destination(NamedTuple):
    """Where the gradients of a call go: ``out``, ``accumulate`` and ``without`` of an operator, checked.

    arrays : by field, the caller's array, or None for a new one. Gradients of Wx, Wh and W are C-contiguous or the
        transpose of what is.
    accumulate : the gradients of weights and biases are added to what the given arrays hold, once an element: the very
        bits that would be written without it.
    without : the fields that are not computed; they are None.
    """

    arrays: Mapping[str, FloatArray | None]
    accumulate: bool
    without: tuple[str, ...]


# --------------------------------------------------------------------------------------------
# Tolerances
# --------------------------------------------------------------------------------------------

# A backend agrees with the definition (backends/numpy, run in float64 on the same inputs) when, for every
# result array, max|got - want| <= TOLERANCE[dtype] * max(1, max|want|).
TOLERANCE: dict[str, float] = {"float32": 2e-5, "float64": 1e-11, "tf32": 5e-3, "bf16": 5e-2}

# The definition's gradients agree with central differences (float64, random directions, relative).
GRADIENT_CHECK_TOLERANCE = 1e-6

# --------------------------------------------------------------------------------------------
# The backend protocol: a module of that name in every backend package
# --------------------------------------------------------------------------------------------
# Arrays arrive C-contiguous, checked, floats of one dtype (float32 or float64). The ids are int32 or int64
# and in range. mask is bool or None. Where h0, c0 is None, zeros are meant. Results are new arrays where none is
# given for them. The record of a forward call carries its precision to backward.
#
# In the recurrent families xs, dhs and the arrays for dxs have any strides over N and T, on the host; time_major says
# that hs and dxs are to lie (T, N, ...) in memory, and so come back as views of that. Wx and Wh are C-contiguous or the
# transpose of what is. Where Wx is None, xs (N, T, G) are the pre-activations of the G gate columns, without b, and dxs
# is their gradient; where b is None there is no bias.
#
# Where a family has more or other functions on a GPU, its protocol there is another, whose name begins with Device.


class LSTMFamily(Protocol):
    """``lstm.py``. Cell after Gers, Schmidhuber, Cummins (2000), without peepholes."""

    def lstm_cell_forward(
        self,
        x: FloatArray,
        Wx: FloatArray | None,
        Wh: FloatArray,
        b: FloatArray | None,
        *,
        h_prev: FloatArray,
        c_prev: FloatArray,
        gate_order: str,
        precision: Precision,
    ) -> tuple[FloatArray, FloatArray, Saved]:
        """h, c, and the record."""
        ...

    def lstm_cell_backward(
        self, saved: Saved, *, dh: FloatArray, dc: FloatArray, into: Destination
    ) -> LSTMCellGrads: ...

    def prepare_lstm(
        self, Wx: FloatArray | None, Wh: FloatArray, b: FloatArray | None, *, gate_order: str, precision: Precision
    ) -> tuple[Any, Any, Any]:
        """What `lstm_forward` takes in place of Wx, Wh and b, without training: later changes of these do not count."""
        ...

    def lstm_forward(
        self,
        xs: FloatArray,
        Wx: FloatArray | None,
        Wh: FloatArray,
        b: FloatArray | None,
        *,
        h0: FloatArray | None,
        c0: FloatArray | None,
        mask: BoolArray | None,
        reverse: bool,
        time_major: bool,
        gate_order: str,
        recurrent_activation: RecurrentActivation,
        training: bool,
        precision: Precision,
    ) -> tuple[FloatArray, FloatArray, FloatArray, Saved | None]:
        """hs, h_n, c_n, and with training the record."""
        ...

    def lstm_backward(
        self,
        saved: Saved,
        *,
        dhs: FloatArray | None,
        dh_n: FloatArray | None,
        dc_n: FloatArray | None,
        into: Destination,
    ) -> LSTMGrads: ...


class GRUFamily(Protocol):
    """``gru.py``. Cho et al. (2014), in any `GRUConvention`; b (3H,), or (2, 3H) with reset_after."""

    def gru_cell_forward(
        self,
        x: FloatArray,
        Wx: FloatArray | None,
        Wh: FloatArray,
        b: FloatArray | None,
        *,
        h_prev: FloatArray,
        convention: GRUConvention,
        precision: Precision,
    ) -> tuple[FloatArray, Saved]:
        """h, and the record."""
        ...

    def gru_cell_backward(self, saved: Saved, *, dh: FloatArray, into: Destination) -> GRUCellGrads: ...

    def prepare_gru(
        self,
        Wx: FloatArray | None,
        Wh: FloatArray,
        b: FloatArray | None,
        *,
        convention: GRUConvention,
        precision: Precision,
    ) -> tuple[Any, Any, Any]:
        """What `gru_forward` takes in place of Wx, Wh and b, without training: later changes of these do not count."""
        ...

    def gru_forward(
        self,
        xs: FloatArray,
        Wx: FloatArray | None,
        Wh: FloatArray,
        b: FloatArray | None,
        *,
        h0: FloatArray | None,
        mask: BoolArray | None,
        reverse: bool,
        time_major: bool,
        convention: GRUConvention,
        training: bool,
        precision: Precision,
    ) -> tuple[FloatArray, FloatArray, Saved | None]:
        """hs, h_n, and with training the record."""
        ...

    def gru_backward(
        self, saved: Saved, *, dhs: FloatArray | None, dh_n: FloatArray | None, into: Destination
    ) -> GRUGrads: ...


class RNNFamily(Protocol):
    """``rnn.py``. h = tanh(x Wx + h_prev Wh + b), Elman (1990)."""

    def rnn_cell_forward(
        self,
        x: FloatArray,
        Wx: FloatArray | None,
        Wh: FloatArray,
        b: FloatArray | None,
        *,
        h_prev: FloatArray,
        precision: Precision,
    ) -> tuple[FloatArray, Saved]:
        """h, and the record."""
        ...

    def rnn_cell_backward(self, saved: Saved, *, dh: FloatArray, into: Destination) -> RNNCellGrads: ...

    def prepare_rnn(
        self, Wx: FloatArray | None, Wh: FloatArray, b: FloatArray | None, *, precision: Precision
    ) -> tuple[Any, Any, Any]:
        """What `rnn_forward` takes in place of Wx, Wh and b, without training: later changes of these do not count."""
        ...

    def rnn_forward(
        self,
        xs: FloatArray,
        Wx: FloatArray | None,
        Wh: FloatArray,
        b: FloatArray | None,
        *,
        h0: FloatArray | None,
        mask: BoolArray | None,
        reverse: bool,
        time_major: bool,
        training: bool,
        precision: Precision,
    ) -> tuple[FloatArray, FloatArray, Saved | None]:
        """hs, h_n, and with training the record."""
        ...

    def rnn_backward(
        self, saved: Saved, *, dhs: FloatArray | None, dh_n: FloatArray | None, into: Destination
    ) -> RNNGrads: ...


class EmbeddingFamily(Protocol):
    """``embedding.py``. ids (M,), rows (M, E): ops flatten the leading axes."""

    def embedding_forward(self, W: FloatArray, ids: IntArray) -> FloatArray: ...

    def embedding_backward(
        self,
        ids: IntArray,
        dout: FloatArray,
        num_embeddings: int,
        *,
        padding_idx: int | None,
        out: FloatArray | None,
        touched: IntArray | None,
        accumulate: bool,
    ) -> FloatArray:
        """With accumulate, which comes with out and without touched, the gradient is added to out, once an element.

        With touched (any ids, which may differ from ids in dtype), all other rows of out are zero already.
        """
        ...

    def embedding_backward_rows(self, ids: IntArray, dout: FloatArray) -> RowGrad: ...

    def scatter_add(self, target: FloatArray, ids: IntArray, rows: FloatArray) -> None: ...


class DeviceEmbeddingFamily(EmbeddingFamily, Protocol):
    """``embedding.py`` of a GPU."""

    def padded_rows(self, ids: IntArray, rows: FloatArray) -> PaddedRowGrad:
        """As embedding_backward_rows, without synchronising."""
        ...


class IdSource(Protocol):
    """What the caller of `DeviceIdsFamily.check` knows of an array, to make an error of for an id in it; hashable."""

    def error(self, value: int) -> IndexError: ...


class DeviceIdsFamily(Protocol):
    """``ids.py`` of a GPU: ids are checked there, without synchronising."""

    def check(self, ids: Any, *, upper: int | None, ignore_index: int | None, source: IdSource) -> IntArray:
        """A copy of ids (M,) with 0 in the place of those neither from 0 to upper - 1 nor ignore_index."""
        ...

    def raise_fault(self) -> None:
        """Raises the error of the first fault that the GPU has found by now, since the last one was raised."""
        ...


class DenseFamily(Protocol):
    """``dense.py``. a (M, K) and b (K, L) are C-contiguous or the transpose of what is."""

    def matrix_product(
        self, a: FloatArray, b: FloatArray, *, bias: FloatArray | None, out: FloatArray | None, precision: Precision
    ) -> FloatArray:
        """a b + bias (L,), (M, L) C-contiguous, in out if that is given."""
        ...

    def prepare_dense(self, W: FloatArray, b: FloatArray | None, *, precision: Precision) -> tuple[Any, Any]:
        """What `matrix_product` takes in place of b and bias, a being C-contiguous; later changes do not count."""
        ...

    def batched_product(self, a: FloatArray, b: FloatArray, *, precision: Precision) -> FloatArray:
        """a (N, M, K) times b (N, K, L), matrix by matrix; either is C-contiguous or ``swapaxes(1, 2)`` of what is."""
        ...


class DropoutFamily(Protocol):
    """``dropout.py``. Draw j of `SamplingFamily` decides about element j, in the order of memory.

    On a GPU the seed may be a 0-d uint64 array, here and in the sampling family.
    """

    def dropout_mask(self, xs: FloatArray, *, ratio: float, seed: int) -> FloatArray:
        """Of xs' shape and dtype: 1 / (1 - ratio), divided in float64, where the draw is at least ratio, else 0."""
        ...


class LossesFamily(Protocol):
    """``losses.py``. logits (M, V), h (M, H), targets (M,) in [0, V) or equal to ignore_index.

    W (H, V) is C-contiguous or the transpose of a C-contiguous (V, H), such as a tied embedding.

    normalizer is what a sum of losses is divided by; on a GPU it may be a 0-d array. Where it is None, it is the number
    of targets that are not ignored. Without any such target the loss is 0.0.
    """

    def softmax(self, logits: FloatArray, *, temperature: float, out: FloatArray | None) -> FloatArray:
        """In out (M, V) if that is given, which may be logits."""
        ...

    def sigmoid_cross_entropy(self, logits: FloatArray, labels: FloatArray, *, normalizer: float) -> LossGrad:
        """Any shape."""
        ...

    def mean_squared_error(self, y: FloatArray, t: FloatArray, *, normalizer: float) -> SquaredErrorGrad:
        """Any shape."""
        ...

    def softmax_cross_entropy(
        self, logits: FloatArray, targets: IntArray, *, ignore_index: int, normalizer: float | None
    ) -> LossGrad: ...

    def linear_cross_entropy(
        self,
        h: FloatArray,
        W: FloatArray,
        b: FloatArray | None,
        targets: IntArray,
        *,
        ignore_index: int,
        memory: Literal["fast", "low"],
        precision: Precision,
        normalizer: float | None,
        into: Destination,
    ) -> LinearLossGrads:
        """The loss is computed even if into is without it; where b is None, into is without db."""
        ...


SampledLossKind: TypeAlias = Literal["sigmoid", "softmax"]


class SamplingFamily(Protocol):
    """``sampling.py``. B is the batch, K = num_true; all ids are int64, expected counts and probabilities float64.

    Equal seeds give equal samples on every backend, to the last bit. So every backend makes draw j = 0, 1, 2 ... of a
    call in the same way, from ``seed`` alone, in float64 and with every product and sum rounded by itself
    (no fused multiply-add: compile C++ with -ffp-contract=off)::

        z = seed + (j + 1) 0x9E3779B97F4A7C15                 SplitMix64, modulo 2^64
        z = (z ^ z >> 30) 0xBF58476D1CE4E5B9
        z = (z ^ z >> 27) 0x94D049BB133111EB
        u = ((z ^ z >> 31) >> 11) 2^-53                       in [0, 1)

    A log-uniform class is (trunc(exp(u log_range)) - 1) mod range_max, with the steps of
    `backends.numpy.sampling.exp_exactly` as exp. A unigram class is i = trunc(u V), or alias[i] if not
    u V - i < threshold[i]. With unique, draws of classes seen before are skipped until num_sampled different ones are
    found, in the order they came; num_tries counts all draws. Without, the first num_sampled draws are the sample.
    """

    def log_uniform_candidates(
        self,
        num_sampled: int,
        range_max: int,
        true_classes: IntArray,
        *,
        unique: bool,
        log_range: float,
        seed: int,
    ) -> Candidates:
        """true_classes (M,), log_range = log(range_max + 1)."""
        ...

    def log_uniform_expected_count(
        self, classes: IntArray, *, log_range: float, num_tries: int, num_sampled: int
    ) -> FloatArray:
        """Expected counts for classes (M,): p num_sampled if num_tries = num_sampled, else 1 - (1 - p)^num_tries.

        On a GPU num_tries may be the 0-d array that `log_uniform_candidates` returned.
        """
        ...

    def alias_table(self, scaled: FloatArray) -> tuple[FloatArray, IntArray]:
        """Threshold and alias (V,) for probabilities scaled (V,) = p V, the same bits on every backend.

        Vose (1991) with two stacks: classes below 1 and classes of at least 1, both pushed in ascending order. While
        both hold some, pop one of each: alias[low] = high, threshold[high] = threshold[high] + threshold[low] - 1
        (in this order), and high is pushed where it belongs now. What is left gets the threshold 1.
        """
        ...

    def unigram_candidates(
        self,
        probabilities: FloatArray,
        threshold: FloatArray,
        alias: IntArray,
        num_sampled: int,
        true_classes: IntArray,
        *,
        unique: bool,
        seed: int,
    ) -> Candidates:
        """All tables (V,); true_classes (M,)."""
        ...

    # weights (V, E), biases (V,), labels (B, K), inputs (B, E), sampled (S,). true_expected_count (B, K) and
    # sampled_expected_count (S,), whose logarithms are subtracted from the logits, are both None or both given.

    def sampled_logits_forward(
        self,
        weights: FloatArray,
        biases: FloatArray,
        labels: IntArray,
        inputs: FloatArray,
        sampled: IntArray,
        *,
        true_expected_count: FloatArray | None,
        sampled_expected_count: FloatArray | None,
        remove_accidental_hits: bool,
    ) -> tuple[FloatArray, FloatArray, Saved]:
        """The logits, their labels, and the record."""
        ...

    def sampled_logits_backward(self, saved: Saved, *, dlogits: FloatArray) -> SampledLogitsGrads: ...

    def sampled_loss(
        self,
        weights: FloatArray,
        biases: FloatArray | None,
        labels: IntArray,
        inputs: FloatArray,
        sampled: IntArray,
        *,
        true_expected_count: FloatArray | None,
        sampled_expected_count: FloatArray | None,
        remove_accidental_hits: bool,
        num_true: int,
        loss: SampledLossKind,
    ) -> SampledLoss:
        """Of the K labels of a row the first num_true are true, each of the label 1 / num_true.

        The others are samples of the row's own; then S is 0, without biases, counts and accidental hits.
        """
        ...


class DeviceSamplingFamily(SamplingFamily, Protocol):
    """``sampling.py`` of a GPU."""

    def padded_sampled_loss(
        self,
        weights: FloatArray,
        biases: FloatArray | None,
        labels: IntArray,
        inputs: FloatArray,
        sampled: IntArray,
        *,
        true_expected_count: FloatArray | None,
        sampled_expected_count: FloatArray | None,
        remove_accidental_hits: bool,
        num_true: int,
        loss: SampledLossKind,
    ) -> PaddedSampledLoss:
        """As sampled_loss, without synchronising."""
        ...


class SkipgramFamily(Protocol):
    """``skipgram.py``. Pairs of words that stand near each other, and word2vec's learning rule.

    A text is ids (L,) int64; an id below 0 ends a sentence. Draw j of a call is that of `SamplingFamily`. The word at
    position i stays in a subsampled text if draw i is below keep of its id; what ends a sentence stays. The word at
    position i has neighbours up to 1 + trunc(draw i window) positions away, as far as its sentence goes.
    """

    def subsample(self, ids: IntArray, keep: FloatArray, *, seed: int) -> IntArray:
        """keep (V,) float64."""
        ...

    def skipgram_counts(self, ids: IntArray, *, window: int, start: int, stop: int, seed: int) -> IntArray:
        """How many neighbours the words at positions start to stop - 1 have, (stop - start,) int64."""
        ...

    def skipgram_pairs(self, ids: IntArray, *, window: int, start: int, stop: int, seed: int) -> SkipgramPairs:
        """Those words with their neighbours, in the order of the text."""
        ...

    def negative_sampling_update(
        self,
        vectors: FloatArray,
        weights: FloatArray,
        centers: IntArray,
        contexts: IntArray,
        threshold: FloatArray,
        alias: IntArray,
        *,
        num_sampled: int,
        lr: float,
        seed: int,
    ) -> float:
        """One step of gradient descent a pair, in their order; returns the sum of their losses.

        vectors, weights (V, E) are changed in place; centers, contexts (M,); threshold, alias (V,). Negative k of pair
        m is draw m num_sampled + k, a unigram class as in `SamplingFamily`; one that is the pair's context counts for
        nothing. The gradients of a pair are all taken before its rows change.
        """
        ...

    def cbow_update(
        self,
        vectors: FloatArray,
        weights: FloatArray,
        centers: IntArray,
        contexts: IntArray,
        counts: IntArray,
        threshold: FloatArray,
        alias: IntArray,
        *,
        num_sampled: int,
        lr: float,
        divide_step: bool,
        seed: int,
    ) -> float:
        """One step a center, in their order; returns the sum of their losses.

        centers, counts (M,); contexts (P,): of the centers one after the other, counts at least 1 of each, P in all.
        The mean of the contexts' vectors takes the place of the vector in `negative_sampling_update`, the center that
        of the context there. The step of the mean is added to the vectors of all its contexts, a word that is there
        twice takes it twice; with divide_step it is divided by their number first, which is gradient descent.
        """
        ...


class OptimFamily(Protocol):
    """``optim.py``. One parameter a call, updated in place.

    Every gradient is multiplied by grad_scale first (a folded gradient clipping). With rows (U,), grad is (U, ...)
    and only param[rows] and the same rows of the state change.
    """

    def sgd_update(
        self, param: FloatArray, grad: FloatArray, rows: IntArray | None, *, lr: float, grad_scale: float
    ) -> None: ...

    def momentum_update(
        self,
        param: FloatArray,
        grad: FloatArray,
        rows: IntArray | None,
        velocity: FloatArray,
        *,
        lr: float,
        momentum: float,
        nesterov: bool,
        grad_scale: float,
    ) -> None: ...

    def adagrad_update(
        self,
        param: FloatArray,
        grad: FloatArray,
        rows: IntArray | None,
        accumulator: FloatArray,
        *,
        lr: float,
        eps: float,
        eps_inside_root: bool,
        grad_scale: float,
    ) -> None: ...

    def rmsprop_update(
        self,
        param: FloatArray,
        grad: FloatArray,
        rows: IntArray | None,
        accumulator: FloatArray,
        *,
        lr: float,
        decay: float,
        eps: float,
        grad_scale: float,
    ) -> None: ...

    def adam_update(
        self,
        param: FloatArray,
        grad: FloatArray,
        rows: IntArray | None,
        m: FloatArray,
        v: FloatArray,
        *,
        lr: float,
        step: int,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        grad_scale: float,
    ) -> None: ...

    def squared_norm(self, grad: FloatArray) -> float: ...

    def scale(self, array: FloatArray, factor: float) -> None: ...

    def clip(self, array: FloatArray, limit: float) -> None:
        """Every element between -limit and limit; NaN stays NaN."""
        ...


# A number of the host, or a 0-d array of a GPU.
Number: TypeAlias = "float | FloatArray"
# What changes in each parameter: all of it, the rows of these indices, or those that a PaddedRowGrad names.
DeviceRows: TypeAlias = "Sequence[IntArray | PaddedRowGrad | None]"


class DeviceOptimFamily(Protocol):
    """``optim.py`` of a GPU, where a call updates all parameters: everything is as in `OptimFamily`, one for each."""

    def sgd_update(
        self,
        params: Sequence[FloatArray],
        grads: Sequence[FloatArray],
        rows: DeviceRows,
        *,
        lr: Number,
        grad_scale: Number,
    ) -> None: ...

    def momentum_update(
        self,
        params: Sequence[FloatArray],
        grads: Sequence[FloatArray],
        rows: DeviceRows,
        velocities: Sequence[FloatArray],
        *,
        lr: Number,
        momentum: float,
        nesterov: bool,
        grad_scale: Number,
    ) -> None: ...

    def adagrad_update(
        self,
        params: Sequence[FloatArray],
        grads: Sequence[FloatArray],
        rows: DeviceRows,
        accumulators: Sequence[FloatArray],
        *,
        lr: Number,
        eps: float,
        eps_inside_root: bool,
        grad_scale: Number,
    ) -> None: ...

    def rmsprop_update(
        self,
        params: Sequence[FloatArray],
        grads: Sequence[FloatArray],
        rows: DeviceRows,
        accumulators: Sequence[FloatArray],
        *,
        lr: Number,
        decay: float,
        eps: float,
        grad_scale: Number,
    ) -> None: ...

    def adam_update(
        self,
        params: Sequence[FloatArray],
        grads: Sequence[FloatArray],
        rows: DeviceRows,
        m: Sequence[FloatArray],
        v: Sequence[FloatArray],
        *,
        lr: Number,
        step: int | IntArray,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        grad_scale: Number,
    ) -> None: ...

    def norm(self, grads: Sequence[FloatArray | PaddedRowGrad]) -> FloatArray:
        """The root of the sum of all squares, added in float64 and in one order: 0-d, float64."""
        ...

    def clip_scale(self, norm: FloatArray, max_norm: float) -> FloatArray:
        """The factor of `ops.clip_scale`, 0-d, float64."""
        ...

    def scale(self, arrays: Sequence[FloatArray], factor: Number) -> None: ...

    def clip(self, arrays: Sequence[FloatArray], limit: float) -> None: ...
