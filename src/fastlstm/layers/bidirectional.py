"""Two recurrent layers, one forwards and one backwards over whole sequences: TimeBiLSTM, TimeBiGRU, TimeBiRNN."""

from __future__ import annotations

from typing import ClassVar, TypeAlias

from fastlstm.arrays import array_module
from fastlstm.contract import BOOK_GATE_ORDER, BoolArray, FloatArray, GRUConvention, GRUConventionName
from fastlstm.layers.layer import Layer
from fastlstm.layers.recurrent import TimeGRU, TimeLSTM, TimeRNN
from fastlstm.ops import checks

OneWay: TypeAlias = TimeLSTM | TimeGRU | TimeRNN


class TimeBidirectional(Layer):
    """Base of the layers that read a sequence in both directions, their states side by side.

    Parameters
    ----------
    forward_layer, backward_layer : recurrent layers over whole sequences
        Of one kind and size; the second with ``reverse=True``.

    Attributes
    ----------
    h : (N, 2H) or None
        States after each one's last step, forwards first.
    """

    param_names: ClassVar[tuple[str, ...]] = ("Wx1", "Wh1", "b1", "Wx2", "Wh2", "b2")

    def __init__(self, forward_layer: OneWay, backward_layer: OneWay) -> None:
        self.forward_layer = forward_layer
        self.backward_layer = backward_layer
        # The two layers' own lists of gradients are the ones that backward fills.
        self.params = forward_layer.params + backward_layer.params
        self.grads = forward_layer.grads + backward_layer.grads

    @property
    def count_formula(self) -> str:
        return f"2 x {self.forward_layer.count_formula}"

    @property
    def h(self) -> FloatArray | None:
        return _side_by_side(self.forward_layer.h, self.backward_layer.h)

    def forward(self, xs: FloatArray, *, mask: BoolArray | None = None, training: bool = True) -> FloatArray:
        """xs (N, T, D) -> hs (N, T, 2H). Keeps what both layers keep; nothing with training=False.

        Where mask (N, T) is False a step carries both states over unchanged.
        """
        before = dict(vars(self.forward_layer))
        try:
            both = [
                layer.forward(xs, mask=mask, training=training) for layer in (self.forward_layer, self.backward_layer)
            ]
        except BaseException:  # an error, or Ctrl-C, in the second: what the first carries over and keeps stays too
            vars(self.forward_layer).update(before)
            raise
        hs: FloatArray = array_module(xs).concatenate(both, axis=2)
        return hs

    def backward(self, dhs: FloatArray | None, *, dh_n: FloatArray | None = None) -> FloatArray:
        """dhs (N, T, 2H), None for zeros; dh_n (N, 2H) by the last states -> dxs (N, T, D)."""
        return self._both_backward(dhs, dh_n=dh_n)

    def _both_backward(self, dhs: FloatArray | None, **by_last_states: FloatArray | None) -> FloatArray:
        H = self.forward_layer.params[1].shape[0]
        # Before the first layer's gradients change: the halves of what fits neither may fit one of them.
        for name, d in (("dhs", dhs), *by_last_states.items()):
            if d is not None:
                checks.require_array(name, d)
                checks.expect_shape(name, d, (*d.shape[:-1], 2 * H), f"for H = {H} of each direction")
        dxs: list[FloatArray] = []
        for layer, half in ((self.forward_layer, slice(H)), (self.backward_layer, slice(H, None))):
            given = {name: None if d is None else d[..., half] for name, d in by_last_states.items()}
            dxs.append(layer.backward(None if dhs is None else dhs[..., half], **given))
        dxs[0] += dxs[1]
        return dxs[0]

    def reset_state(self) -> None:
        self.forward_layer.reset_state()
        self.backward_layer.reset_state()


class TimeBiLSTM(TimeBidirectional):
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

    setting_names: ClassVar[tuple[str, ...]] = ("gate_order",)
    forward_layer: TimeLSTM
    backward_layer: TimeLSTM

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
        super().__init__(
            TimeLSTM(Wx1, Wh1, b1, stateful, gate_order=gate_order),
            TimeLSTM(Wx2, Wh2, b2, stateful, gate_order=gate_order, reverse=True),
        )

    @property
    def forward_lstm(self) -> TimeLSTM:
        return self.forward_layer

    @property
    def backward_lstm(self) -> TimeLSTM:
        return self.backward_layer

    @property
    def gate_order(self) -> str:
        return self.forward_layer.gate_order

    @property
    def c(self) -> FloatArray | None:
        return _side_by_side(self.forward_layer.c, self.backward_layer.c)

    def backward(
        self, dhs: FloatArray | None, *, dh_n: FloatArray | None = None, dc_n: FloatArray | None = None
    ) -> FloatArray:
        """dhs (N, T, 2H), None for zeros; dh_n and dc_n (N, 2H) by the last states -> dxs (N, T, D)."""
        return self._both_backward(dhs, dh_n=dh_n, dc_n=dc_n)


class TimeBiGRU(TimeBidirectional):
    """Two GRUs, one forwards and one backwards over the sequence, their states side by side.

    Parameters
    ----------
    Wx1, Wh1, b1 : (D, 3H), (H, 3H), (3H,) or (2, 3H)
        The GRU that runs forwards.
    Wx2, Wh2, b2 : of the same shapes
        The GRU that runs backwards.
    stateful, convention
        As for `TimeGRU`.

    Attributes
    ----------
    h : (N, 2H) or None
        States after each one's last step, forwards first.
    """

    setting_names: ClassVar[tuple[str, ...]] = ("convention",)
    forward_layer: TimeGRU
    backward_layer: TimeGRU

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
        convention: GRUConventionName | GRUConvention = "book",
    ) -> None:
        super().__init__(
            TimeGRU(Wx1, Wh1, b1, stateful, convention=convention),
            TimeGRU(Wx2, Wh2, b2, stateful, convention=convention, reverse=True),
        )

    @property
    def convention(self) -> GRUConventionName | GRUConvention:
        return self.forward_layer.convention


class TimeBiRNN(TimeBidirectional):
    """Two tanh RNNs, one forwards and one backwards over the sequence, their states side by side.

    Parameters
    ----------
    Wx1, Wh1, b1 : (D, H), (H, H), (H,)
        The RNN that runs forwards.
    Wx2, Wh2, b2 : (D, H), (H, H), (H,)
        The RNN that runs backwards.
    stateful : bool
        As for `TimeRNN`.

    Attributes
    ----------
    h : (N, 2H) or None
        States after each one's last step, forwards first.
    """

    def __init__(
        self,
        Wx1: FloatArray,
        Wh1: FloatArray,
        b1: FloatArray,
        Wx2: FloatArray,
        Wh2: FloatArray,
        b2: FloatArray,
        stateful: bool = False,
    ) -> None:
        super().__init__(TimeRNN(Wx1, Wh1, b1, stateful), TimeRNN(Wx2, Wh2, b2, stateful, reverse=True))


def _side_by_side(forwards: FloatArray | None, backwards: FloatArray | None) -> FloatArray | None:
    if forwards is None or backwards is None:
        return None
    joined: FloatArray = array_module(forwards).concatenate((forwards, backwards), axis=1)
    return joined
