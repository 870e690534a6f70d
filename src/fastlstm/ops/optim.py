"""Parameter updates in place, one fused pass a parameter.

``params`` and ``grads`` are single arrays or sequences of them; a gradient is an array of its parameter's shape or a
`RowGrad`. Everything is checked before anything changes.

On a GPU a call is one launch for up to 48 parameters. There lr, grad_scale and Adam's step may be 0-d arrays of the
GPU, so that nothing waits for the device and a captured graph finds new numbers in every run.
"""

from __future__ import annotations

from fastlstm.backends import device_family, host_optim
from fastlstm.ops import scalars
from fastlstm.ops.current_device import on_arrays_device
from fastlstm.ops.parameters import DeviceUpdate, Grads, Params, checked_updates, number, stands_on_device


@on_arrays_device
def sgd_update(params: Params, grads: Grads, lr: float, *, grad_scale: float = 1.0) -> None:
    """Stochastic gradient descent: p -= lr g.

    Parameters
    ----------
    params : array or sequence of arrays, float32 or float64
        Changed in place; C-contiguous, or the transpose of a C-contiguous array, such as PyTorch's weights or those
        of code that holds vectors in columns. No array that is changed shares memory with another of the call.
    grads : array or RowGrad, or a sequence of them
        Of their parameters' shapes and dtypes; one that does not lie in memory as its parameter does is copied. A
        RowGrad changes only its rows, those of a C-contiguous parameter.
    lr : float
        Learning rate; for parameters on a GPU also a 0-d array there.
    grad_scale : float
        Every gradient is multiplied by it first, see `clip_scale`; for parameters on a GPU also a 0-d array there.

    Raises
    ------
    TypeError, ValueError, IndexError
        Something does not fit, or a parameter is read-only. Nothing is changed then.
    """
    lr = scalars.finite("lr", lr) if type(lr) is float else number("lr", lr, params, finite=True)
    grad_scale = grad_scale if type(grad_scale) is float else number("grad_scale", grad_scale, params)
    updates = checked_updates(params, grads, (), lazy=True)
    if isinstance(updates, DeviceUpdate):
        device_family("optim").sgd_update(*updates[:3], lr=lr, grad_scale=grad_scale)
        return
    family = host_optim()
    for param, grad, rows, _ in updates:
        family.sgd_update(param, grad, rows, lr=lr, grad_scale=grad_scale)


@on_arrays_device
def momentum_update(
    params: Params,
    grads: Grads,
    velocities: Params,
    lr: float,
    *,
    momentum: float = 0.9,
    lazy: bool = True,
    grad_scale: float = 1.0,
) -> None:
    """Momentum: v = momentum v - lr g; p += v.

    Parameters
    ----------
    params, grads, lr, grad_scale
        As in `sgd_update`.
    velocities : array or sequence of arrays
        v, one a parameter, of its shape, dtype and order in memory, as ``numpy.zeros_like(param)`` makes it before the
        first step; changed in place.
    momentum : float from 0 to 1
    lazy : bool
        True: a RowGrad changes only its rows of p and v. False: exactly what the dense gradient would do.

    Raises
    ------
    TypeError, ValueError, IndexError
        Something does not fit. Nothing is changed then.
    """
    _momentum(params, grads, velocities, lr, momentum, lazy, grad_scale, nesterov=False)


@on_arrays_device
def nesterov_update(
    params: Params,
    grads: Grads,
    velocities: Params,
    lr: float,
    *,
    momentum: float = 0.9,
    lazy: bool = True,
    grad_scale: float = 1.0,
) -> None:
    """Nesterov's accelerated gradient: v = momentum v - lr g; p += momentum v - lr g.

    Parameters
    ----------
    params, grads, velocities, lr, momentum, lazy, grad_scale
        As in `momentum_update`.

    Raises
    ------
    TypeError, ValueError, IndexError
        Something does not fit. Nothing is changed then.

    References
    ----------
    Bengio, Boulanger-Lewandowski, Pascanu (2012), "Advances in optimizing recurrent networks", equations 6 and 7.
    """
    _momentum(params, grads, velocities, lr, momentum, lazy, grad_scale, nesterov=True)


def _momentum(
    params: Params,
    grads: Grads,
    velocities: Params,
    lr: float,
    momentum: float,
    lazy: bool,
    grad_scale: float,
    nesterov: bool,
) -> None:
    lr = scalars.finite("lr", lr) if type(lr) is float else number("lr", lr, params, finite=True)
    grad_scale = grad_scale if type(grad_scale) is float else number("grad_scale", grad_scale, params)
    momentum = scalars.finite("momentum", momentum, 0, 1)
    updates = checked_updates(params, grads, (("velocities", velocities),), lazy)
    if isinstance(updates, DeviceUpdate):
        device_family("optim").momentum_update(
            *updates[:3], *updates.states, lr=lr, momentum=momentum, nesterov=nesterov, grad_scale=grad_scale
        )
        return
    family = host_optim()
    for param, grad, rows, (velocity,) in updates:
        family.momentum_update(
            param, grad, rows, velocity, lr=lr, momentum=momentum, nesterov=nesterov, grad_scale=grad_scale
        )


@on_arrays_device
def adagrad_update(
    params: Params,
    grads: Grads,
    accumulators: Params,
    lr: float,
    *,
    eps: float = 1e-7,
    eps_inside_root: bool = False,
    lazy: bool = True,
    grad_scale: float = 1.0,
) -> None:
    """AdaGrad: a += g^2; p -= lr g / (sqrt(a) + eps), or p -= lr g / sqrt(a + eps).

    Parameters
    ----------
    params, grads, lr, grad_scale
        As in `sgd_update`.
    accumulators : array or sequence of arrays
        a, one a parameter, as velocities in `momentum_update`.
    eps : float, not negative
    eps_inside_root : bool
        False: eps is added to the root, as in PyTorch. True: to the accumulator inside the root, as in Keras 3 and in
        many loops written for Theano and numpy.
    lazy : bool
        As in `momentum_update`.

    Raises
    ------
    TypeError, ValueError, IndexError
        Something does not fit. Nothing is changed then.

    References
    ----------
    Duchi, Hazan, Singer (2011), "Adaptive subgradient methods".
    """
    lr = scalars.finite("lr", lr) if type(lr) is float else number("lr", lr, params, finite=True)
    grad_scale = grad_scale if type(grad_scale) is float else number("grad_scale", grad_scale, params)
    eps, eps_inside_root = scalars.finite("eps", eps, 0), bool(eps_inside_root)
    updates = checked_updates(params, grads, (("accumulators", accumulators),), lazy)
    if isinstance(updates, DeviceUpdate):
        device_family("optim").adagrad_update(
            *updates[:3], *updates.states, lr=lr, eps=eps, eps_inside_root=eps_inside_root, grad_scale=grad_scale
        )
        return
    family = host_optim()
    for param, grad, rows, (accumulator,) in updates:
        family.adagrad_update(
            param, grad, rows, accumulator, lr=lr, eps=eps, eps_inside_root=eps_inside_root, grad_scale=grad_scale
        )


@on_arrays_device
def rmsprop_update(
    params: Params,
    grads: Grads,
    accumulators: Params,
    lr: float,
    *,
    decay: float = 0.99,
    eps: float = 1e-7,
    lazy: bool = True,
    grad_scale: float = 1.0,
) -> None:
    """RMSprop: a = decay a + (1 - decay) g^2; p -= lr g / (sqrt(a) + eps).

    Parameters
    ----------
    params, grads, accumulators, lr, eps, lazy, grad_scale
        As in `adagrad_update`.
    decay : float from 0 to 1

    Raises
    ------
    TypeError, ValueError, IndexError
        Something does not fit. Nothing is changed then.

    References
    ----------
    Tieleman, Hinton (2012), Coursera lecture 6.5.
    """
    lr = scalars.finite("lr", lr) if type(lr) is float else number("lr", lr, params, finite=True)
    grad_scale = grad_scale if type(grad_scale) is float else number("grad_scale", grad_scale, params)
    eps = scalars.finite("eps", eps, 0)
    decay = scalars.finite("decay", decay, 0, 1)
    updates = checked_updates(params, grads, (("accumulators", accumulators),), lazy)
    if isinstance(updates, DeviceUpdate):
        device_family("optim").rmsprop_update(
            *updates[:3], *updates.states, lr=lr, decay=decay, eps=eps, grad_scale=grad_scale
        )
        return
    family = host_optim()
    for param, grad, rows, (accumulator,) in updates:
        family.rmsprop_update(param, grad, rows, accumulator, lr=lr, decay=decay, eps=eps, grad_scale=grad_scale)


@on_arrays_device
def adam_update(
    params: Params,
    grads: Grads,
    m: Params,
    v: Params,
    lr: float,
    *,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-7,
    lazy: bool = True,
    grad_scale: float = 1.0,
) -> None:
    """Adam: m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; p -= lr_t m / (sqrt(v) + eps).

    lr_t = lr sqrt(1 - beta2^step) / (1 - beta1^step): the "epsilon hat" form, as in Keras and "Deep Learning from
    Scratch 2". PyTorch adds its eps after the correction instead.

    Parameters
    ----------
    params, grads, lr, grad_scale
        As in `sgd_update`.
    m, v : array or sequence of arrays
        First and second moments, one a parameter, as velocities in `momentum_update`.
    step : int
        1 in the first call, then 2, 3 ...; for parameters on a GPU also a 0-d integer array there.
    beta1, beta2 : float from 0 to below 1
    eps : float, not negative
    lazy : bool
        As in `momentum_update`.

    Raises
    ------
    TypeError, ValueError, IndexError
        Something does not fit. Nothing is changed then.

    References
    ----------
    Kingma, Ba (2015), "Adam", algorithm 1 with the order of computation of the end of section 2.
    """
    _adam(params, grads, m, v, lr, step, beta1, beta2, eps, 0.0, lazy, grad_scale)


@on_arrays_device
def adamw_update(
    params: Params,
    grads: Grads,
    m: Params,
    v: Params,
    lr: float,
    *,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-7,
    weight_decay: float = 0.01,
    lazy: bool = True,
    grad_scale: float = 1.0,
) -> None:
    """Adam with decoupled weight decay: p -= lr weight_decay p, then the step of `adam_update`.

    Parameters
    ----------
    params, grads, m, v, lr, step, beta1, beta2, eps, grad_scale
        As in `adam_update`.
    weight_decay : float, not negative
    lazy : bool
        As in `momentum_update`; rows that a lazy RowGrad does not touch do not decay either.

    Raises
    ------
    TypeError, ValueError, IndexError
        Something does not fit. Nothing is changed then.

    References
    ----------
    Loshchilov, Hutter (2019), "Decoupled weight decay regularization".
    """
    weight_decay = scalars.finite("weight_decay", weight_decay, 0)
    _adam(params, grads, m, v, lr, step, beta1, beta2, eps, weight_decay, lazy, grad_scale)


def _adam(
    params: Params,
    grads: Grads,
    m: Params,
    v: Params,
    lr: float,
    step: int,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    lazy: bool,
    grad_scale: float,
) -> None:
    lr = scalars.finite("lr", lr) if type(lr) is float else number("lr", lr, params, finite=True)
    grad_scale = grad_scale if type(grad_scale) is float else number("grad_scale", grad_scale, params)
    eps = scalars.finite("eps", eps, 0)
    beta1, beta2 = scalars.below_one("beta1", beta1), scalars.below_one("beta2", beta2)
    if type(step) is int or not stands_on_device("step", step, params, "iu"):
        step = scalars.integer("step", step, 1)
    updates = checked_updates(params, grads, (("m", m), ("v", v)), lazy)
    if isinstance(updates, DeviceUpdate):
        device_family("optim").adam_update(
            *updates[:3],
            *updates.states,
            lr=lr,
            step=step,
            beta1=beta1,
            beta2=beta2,
            eps=eps,
            weight_decay=weight_decay,
            grad_scale=grad_scale,
        )
        return
    family = host_optim()
    for param, grad, rows, (m_of_param, v_of_param) in updates:
        family.adam_update(
            param,
            grad,
            rows,
            m_of_param,
            v_of_param,
            lr=lr,
            step=step,
            beta1=beta1,
            beta2=beta2,
            eps=eps,
            weight_decay=weight_decay,
            grad_scale=grad_scale,
        )
