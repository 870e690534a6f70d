"""exp, sigmoid, tanh and one logarithm of scalars, written so that LLVM turns a loop over an array into vector code.

Numba calls libm's exp and tanh element by element. These have no branches: x = k ln 2 + r with integer k and
abs(r) <= ln(2) / 2 (Cody and Waite), then the Taylor series of e^r - 1, whose terms beyond the last kept one are below
half a unit in the last place. sigmoid and tanh are within 3 units in the last place; tanh comes from e^x - 1, not from
e^x, and so keeps its relative accuracy near 0. NaN gives NaN.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastlstm.backends.numba.compiling import inner


class _Format(NamedTuple):
    mantissa_bits: int
    exponent_bias: int
    exp_terms: int
    log_terms: int
    ln2_high: float  # few enough bits that k * ln2_high is exact
    limit: float  # exp(limit) and exp(-limit) are ordinary numbers


_FORMATS = {
    32: _Format(23, 127, 7, 8, 355 / 512, 87.0),
    64: _Format(52, 1023, 13, 17, float.fromhex("0x1.62e42feep-1"), 708.0),
}


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, fused where the processor can."""
    name = {ir.FloatType(): "f32", ir.DoubleType(): "f64"}[a.type]
    signature = ir.FunctionType(a.type, [a.type] * 3)
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.fmuladd.{name}")
    return builder.call(function, [a, b, c])


@intrinsic
def multiply_add(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c of three floats of one type, fused where the processor can."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _multiply_add(builder, *args)

    return a(a, a, a), codegen


@intrinsic
def _power_and_rest(typingctx: Any, x: Any) -> Any:
    """(2^k, e^r - 1) with x = k ln 2 + r; x beyond the limits of the format is moved to them."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = signature.args[0].bitwidth
        form = _FORMATS[bits]
        (value,) = args
        real, integer = value.type, ir.IntType(bits)

        def constant(number: float) -> Any:
            return ir.Constant(real, number)

        for comparison, limit in (("<", -form.limit), (">", form.limit)):
            beyond = builder.fcmp_ordered(comparison, value, constant(limit))
            value = builder.select(beyond, constant(limit), value)
        # Adding 1.5 * 2^mantissa_bits rounds to an integer and leaves it in the low bits of the mantissa; with the
        # exponent's bias added too, moving these bits up into the exponent's place makes 2^k.
        shift = constant(1.5 * 2.0**form.mantissa_bits + form.exponent_bias)
        shifted = _multiply_add(builder, value, constant(1 / math.log(2)), shift)
        k = builder.fsub(shifted, shift)
        pattern = builder.shl(builder.bitcast(shifted, integer), ir.Constant(integer, form.mantissa_bits))
        power = builder.bitcast(pattern, real)
        r = _multiply_add(builder, k, constant(-form.ln2_high), value)
        r = _multiply_add(builder, k, constant(-_ln2_low(form.ln2_high)), r)
        series = constant(1 / math.factorial(form.exp_terms))
        for n in range(form.exp_terms - 1, 1, -1):
            series = _multiply_add(builder, series, r, constant(1 / math.factorial(n)))
        rest = _multiply_add(builder, builder.fmul(r, r), series, r)
        return context.make_tuple(builder, signature.return_type, [power, rest])

    return types.UniTuple(x, 2)(x), codegen


@intrinsic
def _area_tangent_series(typingctx: Any, s: Any) -> Any:
    """artanh(s) / s for abs(s) <= 1/3."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (value,) = args
        square = builder.fmul(value, value)
        terms = _FORMATS[signature.args[0].bitwidth].log_terms
        series = ir.Constant(value.type, 1 / (2 * terms - 1))
        for n in range(terms - 2, -1, -1):
            series = _multiply_add(builder, series, square, ir.Constant(value.type, 1 / (2 * n + 1)))
        return series

    return s(s), codegen


@intrinsic
def round_to_bf16(typingctx: Any, x: Any) -> Any:
    """The nearest bfloat16, ties to even, in the type of x; NaN stays NaN. See ``backends/numpy/dense.py``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (value,) = args
        single, integer = ir.FloatType(), ir.IntType(32)

        def constant(number: int) -> Any:
            return ir.Constant(integer, number)

        is_double = value.type == ir.DoubleType()
        bits = builder.bitcast(builder.fptrunc(value, single) if is_double else value, integer)
        is_odd = builder.and_(builder.lshr(bits, constant(16)), constant(1))
        nearest = builder.add(bits, builder.add(is_odd, constant(0x7FFF)))
        rounded = builder.bitcast(builder.and_(nearest, constant(0xFFFF0000)), single)
        if is_double:
            rounded = builder.fpext(rounded, value.type)
        return builder.select(builder.fcmp_unordered("uno", value, value), value, rounded)

    return x(x), codegen


def _ln2_low(high: float) -> float:
    """ln 2 - high, to full accuracy: ln 2 itself as a double and what that leaves out."""
    return (math.log(2) - high) + 2.319046813846299558e-17


@inner
def exp(x: float) -> float:
    """e^x; 0 below the smallest ordinary number. x must not be large and positive."""
    real = type(x)
    power, rest = _power_and_rest(x)
    e = multiply_add(power, rest, power)
    return e if x >= real(-87.0) or x != x else real(0)


@inner
def sigmoid(x: float) -> float:
    """1 / (1 + e^-x)."""
    one = type(x)(1)
    power, rest = _power_and_rest(-x)
    return one / (one + multiply_add(power, rest, power))


@inner
def tanh(x: float) -> float:
    """(e^2x - 1) / (e^2x + 1). Beyond 20 it is 1 in either format."""
    real = type(x)
    clipped = x
    if clipped < real(-20):
        clipped = real(-20)
    if clipped > real(20):
        clipped = real(20)
    power, rest = _power_and_rest(clipped + clipped)
    e = multiply_add(power, rest, power - real(1))
    return e / (e + real(2))


@inner
def hard_sigmoid(x: float) -> float:
    """Keras 1 and 2: clip(0.2 x + 0.5, 0, 1)."""
    real = type(x)
    y = real(0.2) * x + real(0.5)
    if y < real(0):
        y = real(0)
    if y > real(1):
        y = real(1)
    return y


@inner
def log1p_to_one(x: float) -> float:
    """log(1 + x) for x from 0 to 1: 2 artanh(x / (2 + x))."""
    two = type(x)(2)
    s = x / (two + x)
    return two * s * _area_tangent_series(s)
