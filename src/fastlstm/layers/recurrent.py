"""RNN, LSTM and GRU: one step (RNN, LSTM, GRU) and whole sequences (TimeRNN, TimeLSTM, TimeBiLSTM, TimeGRU)."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from fastlstm import ops
from fastlstm.arrays import array_module
from fastlstm.contract import BOOK_GATE_ORDER, BoolArray, FloatArray, GRUConvention, GRUConventionName, PreparedWeights
from fastlstm.layers.layer import Layer


class _WeightGrads(NamedTuple):
    """Where backward writes the gradients of a layer's weights."""

    dWx: FloatArray
    dWh: FloatArray
    db: FloatArray


class RNN(Layer):
    """One step of a tanh RNN.

    Parameters
    ----------
    Wx : (D, H)
    Wh : (H, H)
    b : (H,)
    """

    param_names: ClassVar[tuple[str, ...]] = ("Wx", "Wh", "b")

    def __init__(self, Wx: FloatArray, Wh: FloatArray, b: FloatArray) -> None:
        super().__init__(Wx, Wh, b)
        self._tape: Any = None

    def forward(self, x: FloatArray, h_prev: FloatArray) -> FloatArray:
        """x (N, D), h_prev (N, H) -> h_next (N, H). Keeps all three."""
        h_next, self._tape = ops.rnn_cell_forward(x, h_prev, *self.params, precision=self.precision)
        return h_next

    def backward(self, dh_next: FloatArray) -> tuple[FloatArray, FloatArray]:
        """dh_next (N, H) -> dx (N, D), dh_prev (N, H)."""
        grads = ops.rnn_cell_backward(dh_next, self._tape, out=_WeightGrads(*self.grads))
        return grads.dx, grads.dh_prev


class LSTM(Layer):
    """One step of an LSTM.

    Parameters
    ----------
    Wx : (D, 4H)
    Wh : (H, 4H)
    b : (4H,)
    gate_order : str
        A permutation of "ifgo"; the book's is "fgio", where `fastlstm.ops` defaults to Keras's and PyTorch's "ifgo".
    """

    param_names: ClassVar[tuple[str, ...]] = ("Wx", "Wh", "b")
    setting_names: ClassVar[tuple[str, ...]] = ("gate_order",)

    def __init__(self, Wx: FloatArray, Wh: FloatArray, b: FloatArray, *, gate_order: str = BOOK_GATE_ORDER) -> None:
        super().__init__(Wx, Wh, b)
        self.gate_order = gate_order
        self._tape: Any = None

    def forward(self, x: FloatArray, h_prev: FloatArray, c_prev: FloatArray) -> tuple[FloatArray, FloatArray]:
        """x (N, D), h_prev and c_prev (N, H) -> h_next, c_next (N, H). Keeps x, h_prev and c_prev."""
        h, c, self._tape = ops.lstm_cell_forward(
            x, h_prev, c_prev, *self.params, gate_order=self.gate_order, precision=self.precision
        )
        return h, c

    def backward(self, dh_next: FloatArray, dc_next: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """dh_next, dc_next (N, H) -> dx (N, D), dh_prev, dc_prev (N, H)."""
        grads = ops.lstm_cell_backward(dh_next, dc_next, self._tape, out=_WeightGrads(*self.grads))
        return grads.dx, grads.dh_prev, grads.dc_prev


class GRU(Layer):
    """One step of a GRU.

    Parameters
    ----------
    Wx : (D, 3H)
    Wh : (H, 3H)
    b : (3H,), or (2, 3H) for "pytorch" and "keras"
    convention : "book", "pytorch", "keras" or a GRUConvention
        As for `fastlstm.ops.gru_forward`.
    """

    param_names: ClassVar[tuple[str, ...]] = ("Wx", "Wh", "b")
    setting_names: ClassVar[tuple[str, ...]] = ("convention",)

    def __init__(
        self, Wx: FloatArray, Wh: FloatArray, b: FloatArray, *, convention: GRUConventionName | GRUConvention = "book"
    ) -> None:
        super().__init__(Wx, Wh, b)
        self.convention = convention
        self._tape: Any = None

    def forward(self, x: FloatArray, h_prev: FloatArray) -> FloatArray:
        """x (N, D), h_prev (N, H) -> h_next (N, H). Keeps x and h_prev."""
        h_next, self._tape = ops.gru_cell_forward(
            x, h_prev, *self.params, convention=self.convention, precision=self.precision
        )
        return h_next

    def backward(self, dh_next: FloatArray) -> tuple[FloatArray, FloatArray]:
        """dh_next (N, H) -> dx (N, D), dh_prev (N, H)."""
        grads = ops.gru_cell_backward(dh_next, self._tape, out=_WeightGrads(*self.grads))
        return grads.dx, grads.dh_prev


class TimeRNN(Layer):
    """A tanh RNN over whole sequences.

    Parameters
    ----------
    Wx : (D, H)
    Wh : (H, H)
    b : (H,)
    stateful : bool
        Start each forward call from the last state of the call before.

    Attributes
    ----------
    h : (N, H) or None
        State after the last step.
    dh : (N, H) or None
        Gradient by the state before the first step, set by ``backward``.
    """

    param_names: ClassVar[tuple[str, ...]] = ("Wx", "Wh", "b")
    state_names: ClassVar[tuple[str, ...]] = ("h",)
    setting_names: ClassVar[tuple[str, ...]] = ("stateful",)

    def __init__(self, Wx: FloatArray, Wh: FloatArray, b: FloatArray, stateful: bool = False) -> None:
        super().__init__(Wx, Wh, b)
        self.stateful = stateful
        self.h: FloatArray | None = None
        self.dh: FloatArray | None = None
        self._tape: Any = None

    @property
    def count_formula(self) -> str:
        D, H = self.params[0].shape
        return f"{H} x ({D} + {H}) + {H}"

    def _prepare(self) -> PreparedWeights[Any]:
        return ops.prepare_rnn(*self.params, precision=self.precision)

    def forward(self, xs: FloatArray, *, training: bool = True) -> FloatArray:
        """xs (N, T, D) -> hs (N, T, H). Keeps both and the states before and after; nothing with training=False."""
        h0 = self.h if self.stateful else None
        hs, self.h, self._tape = ops.rnn_forward(
            xs, *self._for_operator(training=training), h0=h0, training=training, precision=self.precision
        )
        return hs

    def backward(self, dhs: FloatArray | None, *, dh_n: FloatArray | None = None) -> FloatArray:
        """dhs (N, T, H), None for zeros; dh_n (N, H) by the last state -> dxs (N, T, D)."""
        grads = ops.rnn_backward(dhs, self._tape, dh_n=dh_n, out=_WeightGrads(*self.grads))
        self.dh = grads.dh0
        return grads.dxs

    def set_state(self, h: FloatArray | None) -> None:
        self.h = h

    def reset_state(self) -> None:
        self.h = None


class TimeLSTM(Layer):
    """An LSTM over whole sequences.

    Parameters
    ----------
    Wx : (D, 4H)
    Wh : (H, 4H)
    b : (4H,)
    stateful : bool
        Start each forward call from the last state of the call before.
    gate_order : str
        A permutation of "ifgo"; the book's is "fgio", where `fastlstm.ops` defaults to Keras's and PyTorch's "ifgo".
    reverse : bool
        Run from the last step to the first; hs[:, t] still belongs to step t.

    Attributes
    ----------
    h, c : (N, H) or None
        State after the last step.
    dh, dc : (N, H) or None
        Gradients by the state before the first step, set by ``backward``.
    """

    param_names: ClassVar[tuple[str, ...]] = ("Wx", "Wh", "b")
    state_names: ClassVar[tuple[str, ...]] = ("h", "c")
    setting_names: ClassVar[tuple[str, ...]] = ("gate_order", "reverse", "stateful")

    def __init__(
        self,
        Wx: FloatArray,
        Wh: FloatArray,
        b: FloatArray,
        stateful: bool = False,
        *,
        gate_order: str = BOOK_GATE_ORDER,
        reverse: bool = False,
    ) -> None:
        super().__init__(Wx, Wh, b)
        self.stateful = stateful
        self.gate_order = gate_order
        self.reverse = reverse
        self.h: FloatArray | None = None
        self.c: FloatArray | None = None
        self.dh: FloatArray | None = None
        self.dc: FloatArray | None = None
        self._tape: Any = None

    @property
    def count_formula(self) -> str:
        D, H = self.params[0].shape[0], self.params[1].shape[0]
        return f"4 gates x ({H} x ({D} + {H}) + {H})"

    def _prepare(self) -> PreparedWeights[Any]:
        return ops.prepare_lstm(*self.params, gate_order=self.gate_order, precision=self.precision)

    def forward(self, xs: FloatArray, *, mask: BoolArray | None = None, training: bool = True) -> FloatArray:
        """xs (N, T, D) -> hs (N, T, H). Keeps xs and the state it starts from; nothing with training=False.

        Where mask (N, T) is False a step carries the state over unchanged.
        """
        h0, c0 = (self.h, self.c) if self.stateful else (None, None)
        hs, self.h, self.c, self._tape = ops.lstm_forward(
            xs,
            *self._for_operator(training=training),
            h0=h0,
            c0=c0,
            mask=mask,
            reverse=self.reverse,
            gate_order=self.gate_order,
            training=training,
            precision=self.precision,
        )
        return hs

    def backward(
        self, dhs: FloatArray | None, *, dh_n: FloatArray | None = None, dc_n: FloatArray | None = None
    ) -> FloatArray:
        """dhs (N, T, H), None for zeros; dh_n and dc_n (N, H) by the last state -> dxs (N, T, D)."""
        grads = ops.lstm_backward(dhs, self._tape, dh_n=dh_n, dc_n=dc_n, out=_WeightGrads(*self.grads))
        self.dh, self.dc = grads.dh0, grads.dc0
        return grads.dxs

    def set_state(self, h: FloatArray | None, c: FloatArray | None = None) -> None:
        """The state the next forward call of a stateful layer starts from; None is zeros."""
        self.h, self.c = h, c

    def reset_state(self) -> None:
        self.h, self.c = None, None


class TimeBiLSTM(Layer):
    """Two LSTMs, one forwards and one backwards over the sequence, their states side by side.

    Parameters
    ----------
    Wx1, Wh1, b1 : (D, 4H), (H, 4H), (4H,)
        The LSTM that runs forwards.
    Wx2, Wh2, b2 : (D, 4H), (H, 4H), (4H,)
        The LSTM that runs backwards.
    stateful, gate_order
        As for `TimeLSTM`.

    Attributes
    ----------
    h, c : (N, 2H) or None
        States after each one's last step, forwards first.
    """

    param_names: ClassVar[tuple[str, ...]] = ("Wx1", "Wh1", "b1", "Wx2", "Wh2", "b2")
    setting_names: ClassVar[tuple[str, ...]] = ("gate_order",)

    def __init__(
        self,
        Wx1: FloatArray,
        Wh1: FloatArray,
        b1: FloatArray,
        Wx2: FloatArray,
        Wh2: FloatArray,
        b2: FloatArray,
        stateful: bool = False,
        *,
        gate_order: str = BOOK_GATE_ORDER,
    ) -> None:
        self.forward_lstm = TimeLSTM(Wx1, Wh1, b1, stateful, gate_order=gate_order)
        self.backward_lstm = TimeLSTM(Wx2, Wh2, b2, stateful, gate_order=gate_order, reverse=True)
        # The two layers' own lists of gradients are the ones that backward fills.
        self.params = self.forward_lstm.params + self.backward_lstm.params
        self.grads = self.forward_lstm.grads + self.backward_lstm.grads

    @property
    def gate_order(self) -> str:
        return self.forward_lstm.gate_order

    @property
    def count_formula(self) -> str:
        return f"2 x {self.forward_lstm.count_formula}"

    @property
    def h(self) -> FloatArray | None:
        return _side_by_side(self.forward_lstm.h, self.backward_lstm.h)

    @property
    def c(self) -> FloatArray | None:
        return _side_by_side(self.forward_lstm.c, self.backward_lstm.c)

    def forward(self, xs: FloatArray, *, mask: BoolArray | None = None, training: bool = True) -> FloatArray:
        """xs (N, T, D) -> hs (N, T, 2H). Keeps xs and the states it starts from; nothing with training=False.

        Where mask (N, T) is False a step carries both states over unchanged.
        """
        lstms = self.forward_lstm, self.backward_lstm
        both = [lstm.forward(xs, mask=mask, training=training) for lstm in lstms]
        hs: FloatArray = array_module(xs).concatenate(both, axis=2)
        return hs

    def backward(
        self, dhs: FloatArray | None, *, dh_n: FloatArray | None = None, dc_n: FloatArray | None = None
    ) -> FloatArray:
        """dhs (N, T, 2H), None for zeros; dh_n and dc_n (N, 2H) by the last states -> dxs (N, T, D)."""
        H = self.forward_lstm.params[1].shape[0]
        halves = [(None, None) if d is None else (d[..., :H], d[..., H:]) for d in (dhs, dh_n, dc_n)]
        (dhs1, dhs2), (dh1, dh2), (dc1, dc2) = halves
        dxs = self.forward_lstm.backward(dhs1, dh_n=dh1, dc_n=dc1)
        dxs += self.backward_lstm.backward(dhs2, dh_n=dh2, dc_n=dc2)
        return dxs

    def reset_state(self) -> None:
        self.forward_lstm.reset_state()
        self.backward_lstm.reset_state()


class TimeGRU(Layer):
    """A GRU over whole sequences.

    Parameters
    ----------
    Wx : (D, 3H)
    Wh : (H, 3H)
    b : (3H,), or (2, 3H) for "pytorch" and "keras"
    stateful : bool
        Start each forward call from the last state of the call before.
    convention : "book", "pytorch", "keras" or a GRUConvention
        As for `fastlstm.ops.gru_forward`.
    reverse : bool
        Run from the last step to the first; hs[:, t] still belongs to step t.

    Attributes
    ----------
    h : (N, H) or None
        State after the last step.
    dh : (N, H) or None
        Gradient by the state before the first step, set by ``backward``.
    """

    param_names: ClassVar[tuple[str, ...]] = ("Wx", "Wh", "b")
    state_names: ClassVar[tuple[str, ...]] = ("h",)
    setting_names: ClassVar[tuple[str, ...]] = ("convention", "reverse", "stateful")

    def __init__(
        self,
        Wx: FloatArray,
        Wh: FloatArray,
        b: FloatArray,
        stateful: bool = False,
        *,
        convention: GRUConventionName | GRUConvention = "book",
        reverse: bool = False,
    ) -> None:
        super().__init__(Wx, Wh, b)
        self.stateful = stateful
        self.convention = convention
        self.reverse = reverse
        self.h: FloatArray | None = None
        self.dh: FloatArray | None = None
        self._tape: Any = None

    @property
    def count_formula(self) -> str:
        D, H = self.params[0].shape[0], self.params[1].shape[0]
        biases = f"{H}" if self.params[2].ndim == 1 else f"2 x {H}"
        return f"3 gates x ({H} x ({D} + {H}) + {biases})"

    def _prepare(self) -> PreparedWeights[Any]:
        return ops.prepare_gru(*self.params, convention=self.convention, precision=self.precision)

    def forward(self, xs: FloatArray, *, training: bool = True) -> FloatArray:
        """xs (N, T, D) -> hs (N, T, H). Keeps both and the state it starts from; nothing with training=False."""
        h0 = self.h if self.stateful else None
        hs, self.h, self._tape = ops.gru_forward(
            xs,
            *self._for_operator(training=training),
            h0=h0,
            reverse=self.reverse,
            convention=self.convention,
            training=training,
            precision=self.precision,
        )
        return hs

    def backward(self, dhs: FloatArray | None, *, dh_n: FloatArray | None = None) -> FloatArray:
        """dhs (N, T, H), None for zeros; dh_n (N, H) by the last state -> dxs (N, T, D)."""
        grads = ops.gru_backward(dhs, self._tape, dh_n=dh_n, out=_WeightGrads(*self.grads))
        self.dh = grads.dh0
        return grads.dxs

    def set_state(self, h: FloatArray | None) -> None:
        self.h = h

    def reset_state(self) -> None:
        self.h = None


def _side_by_side(forwards: FloatArray | None, backwards: FloatArray | None) -> FloatArray | None:
    if forwards is None or backwards is None:
        return None
    joined: FloatArray = array_module(forwards).concatenate((forwards, backwards), axis=1)
    return joined
