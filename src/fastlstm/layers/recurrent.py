"""RNN, LSTM and GRU: one step (RNN, LSTM, GRU) and whole sequences (TimeRNN, TimeLSTM, TimeGRU)."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from fastlstm import ops
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
    setting_names: ClassVar[tuple[str, ...]] = ("reverse", "stateful")

    def __init__(
        self, Wx: FloatArray, Wh: FloatArray, b: FloatArray, stateful: bool = False, *, reverse: bool = False
    ) -> None:
        super().__init__(Wx, Wh, b)
        self.stateful = stateful
        self.reverse = reverse
        self.h: FloatArray | None = None
        self.dh: FloatArray | None = None
        self._tape: Any = None

    @property
    def count_formula(self) -> str:
        D, H = self.params[0].shape
        return f"{H} x ({D} + {H}) + {H}"

    def _prepare(self) -> PreparedWeights[Any]:
        return ops.prepare_rnn(*self.params, precision=self.precision)

    def forward(self, xs: FloatArray, *, mask: BoolArray | None = None, training: bool = True) -> FloatArray:
        """xs (N, T, D) -> hs (N, T, H). Keeps both and the states before and after; nothing with training=False.

        Where mask (N, T) is False a step carries the state over unchanged.
        """
        h0 = self.h if self.stateful else None
        hs, self.h, self._tape = ops.rnn_forward(
            xs,
            *self._for_operator(training=training),
            h0=h0,
            mask=mask,
            reverse=self.reverse,
            training=training,
            precision=self.precision,
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

    def forward(self, xs: FloatArray, *, mask: BoolArray | None = None, training: bool = True) -> FloatArray:
        """xs (N, T, D) -> hs (N, T, H). Keeps both and the state it starts from; nothing with training=False.

        Where mask (N, T) is False a step carries the state over unchanged.
        """
        h0 = self.h if self.stateful else None
        hs, self.h, self._tape = ops.gru_forward(
            xs,
            *self._for_operator(training=training),
            h0=h0,
            mask=mask,
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
