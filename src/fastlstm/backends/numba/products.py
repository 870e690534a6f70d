"""Matrix products A B, with B packed.

numpy's BLAS cannot be called inside a kernel without SciPy, and a call of it for every time step costs more than many a
step's work. These products are also the same bits for any number of threads and any split of the rows.

B is packed in panels of _TILE_VECTORS vectors of columns, each panel holding its rows one after the other, so that the
innermost loop reads it front to back. That loop (`_tile`) keeps a tile of A B in vector registers, up to _TILE_ROWS
rows by _TILE_VECTORS vectors. Numba has no vector type, so the loop is written in LLVM's language: for every k it loads
the vectors of B's row, spreads one element of each of A's rows over a vector, multiplies and adds. Every element of the
result is one chain of multiply-adds over k, in order, in blocks of `_DEPTH`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array
from numpy.lib.stride_tricks import as_strided

from fastlstm.backends.numba.compiling import flat, inner, kernel
from fastlstm.backends.numba.workers import over_blocks
from fastlstm.contract import FloatArray

_cpu = llvmlite.binding.get_host_cpu_features()
_VECTOR_BYTES = 64 if _cpu.get("avx512f") else 32 if _cpu.get("avx2") else 16
# 24 accumulators where there are 32 vector registers (AVX-512, NEON), 12 where there are 16.
_TILE_VECTORS = 4 if _cpu.get("avx512f") or _cpu.get("neon") else 2
_TILE_ROWS = 6
_PANEL_BYTES = _VECTOR_BYTES * _TILE_VECTORS
# One panel of this many rows stays in the L2 cache; partial sums of this length keep their accuracy.
_DEPTH = 512
# Transposing moves squares of this side: each cache line is read once, and those written to are still there.
_BLOCK = 64


class Rows(NamedTuple):
    """A matrix in a flat array: its first row is at start, row after row `distance` elements apart."""

    array: FloatArray
    start: int
    distance: int


@intrinsic
def part(typingctx: Any, array: Any, start: Any, size: Any) -> Any:
    """array[start : start + size] of a flat array, without counting a reference.

    Slicing counts one, and threads that slice the same array all the time wait for each other's counting.
    """
    borrowed = types.Array(array.dtype, 1, "C")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = make_array(signature.args[0])(context, builder, args[0])
        result = make_array(borrowed)(context, builder)
        itemsize = context.get_constant(types.intp, array.dtype.bitwidth // 8)
        data = builder.gep(source.data, [args[1]])
        populate_array(result, data=data, shape=[args[2]], strides=[itemsize], itemsize=itemsize, meminfo=None)
        return result._getvalue()

    return borrowed(array, types.intp, types.intp), codegen


@intrinsic
def _tile(
    typingctx: Any,
    rows: Any,
    wide: Any,
    a: Any,
    a_start: Any,
    a_row: Any,
    b: Any,
    b_start: Any,
    b_row: Any,
    depth: Any,
    c: Any,
    c_start: Any,
    c_row: Any,
    add: Any,
) -> Any:
    """C = A B or, with add, C += A B, for one tile of 1 to _TILE_ROWS rows; depth > 0.

    With wide it has _TILE_VECTORS vectors of columns, else one: code for every number would take long to compile.
    A, B and C are flat arrays whose rows begin at a_start ... and are a_row ... elements apart.
    """
    n, flag = types.intp, types.boolean
    signature = types.void(n, flag, a, n, n, b, n, n, n, c, n, n, flag)
    size = a.dtype.bitwidth // 8
    lanes = _VECTOR_BYTES // size

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows, wide, a, a_start, a_row, b, b_start, b_row, depth, c, c_start, c_row, add = args
        real, index, short = context.get_value_type(signature.args[2].dtype), depth.type, ir.IntType(32)
        vector = ir.VectorType(real, lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        everywhere = ir.Constant(ir.VectorType(short, lanes), [0] * lanes)
        zero = ir.Constant(vector, [0.0] * lanes)
        multiply_add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{lanes}f{size * 8}"
        )

        def number(value: int) -> Any:
            return ir.Constant(index, value)

        def address(array: Any, kind: Any, start: Any) -> Any:
            return builder.gep(make_array(kind)(context, builder, array).data, [start])

        def vector_at(pointer: Any, offset: Any) -> Any:
            return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())

        def load(pointer: Any) -> Any:
            value = builder.load(pointer)
            value.align = size
            return value

        def spread(scalar: Any) -> Any:
            first = builder.insert_element(undefined, scalar, ir.Constant(short, 0))
            return builder.shuffle_vector(first, undefined, everywhere)

        a_at = address(a, signature.args[2], a_start)
        b_at = address(b, signature.args[5], b_start)
        c_at = address(c, signature.args[9], c_start)

        def emit(R: int, V: int) -> None:
            """The code for a tile of R rows and V vectors."""
            tile = [(r, v) for r in range(R) for v in range(V)]
            a_rows = [builder.gep(a_at, [builder.mul(a_row, number(r))]) for r in range(R)]
            before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
            builder.branch(loop)

            builder.position_at_end(loop)
            k = builder.phi(index)
            sums = {place: builder.phi(vector) for place in tile}
            b_k = builder.mul(k, b_row)
            b_vectors = [load(vector_at(b_at, builder.add(b_k, number(v * lanes)))) for v in range(V)]
            new_sums = {}
            for r in range(R):
                element = spread(load(builder.gep(a_rows[r], [k])))
                for v in range(V):
                    new_sums[r, v] = builder.call(multiply_add, [element, b_vectors[v], sums[r, v]])
            next_k = builder.add(k, number(1))
            k.add_incoming(number(0), before)
            k.add_incoming(next_k, loop)
            for place in tile:
                sums[place].add_incoming(zero, before)
                sums[place].add_incoming(new_sums[place], loop)
            builder.cbranch(builder.icmp_signed("<", next_k, depth), loop, after)

            builder.position_at_end(after)
            c_vectors = {
                (r, v): vector_at(c_at, builder.add(builder.mul(c_row, number(r)), number(v * lanes))) for r, v in tile
            }
            with builder.if_else(add) as (adding, replacing):
                with adding:
                    for place in tile:
                        total = builder.fadd(load(c_vectors[place]), new_sums[place])
                        builder.store(total, c_vectors[place]).align = size
                with replacing:
                    for place in tile:
                        builder.store(new_sums[place], c_vectors[place]).align = size

        done = builder.append_basic_block("done")
        kinds = {0: 1, 1: _TILE_VECTORS}
        choice = builder.switch(builder.add(builder.mul(rows, number(2)), builder.zext(wide, index)), done)
        for R in range(1, _TILE_ROWS + 1):
            for is_wide, V in kinds.items():
                block = builder.append_basic_block(f"tile_{R}x{V}")
                choice.add_case(number(2 * R + is_wide), block)
                builder.position_at_end(block)
                emit(R, V)
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return signature, codegen


@inner
def panel_columns(itemsize: int) -> int:
    """Columns of a panel."""
    return _PANEL_BYTES // itemsize


@inner
def _panel_count(N: int, itemsize: int) -> int:
    """Panels of a matrix with N columns; the last may be narrower, of whole vectors."""
    return -(-N // panel_columns(itemsize))


@inner
def _padded_width(N: int, panel: int, itemsize: int) -> int:
    """Columns of one panel, rounded up to whole vectors."""
    columns, lanes = panel_columns(itemsize), _VECTOR_BYTES // itemsize
    return min(columns, -(-(N - panel * columns) // lanes) * lanes)


@inner
def _packed_size(K: int, N: int, itemsize: int) -> int:
    lanes = _VECTOR_BYTES // itemsize
    return K * (-(-N // lanes) * lanes)


@inner
def _pack_panel(
    b: FloatArray,
    b_row: int,
    transposed: bool,
    K: int,
    N: int,
    panel: int,
    out: FloatArray,
    out_start: int,
) -> None:
    """One panel of B (K, N) to out[out_start:]; columns beyond N become zeros.

    B is flat, its rows b_row elements apart; with transposed, its transpose is given, its rows b_row elements apart.
    """
    first = panel * panel_columns(b.itemsize)
    padded = _padded_width(N, panel, b.itemsize)
    width = min(padded, N - first)
    zero = b.dtype.type(0)
    if transposed:
        for k in range(0, K, _BLOCK):
            size = min(_BLOCK, K - k)
            for j in range(width):
                source = part(b, (first + j) * b_row + k, size)
                target = part(out, out_start + k * padded + j, (size - 1) * padded + 1)
                for i in range(size):
                    target[i * padded] = source[i]
    else:
        for k in range(K):
            source = part(b, k * b_row + first, width)
            target = part(out, out_start + k * padded, padded)
            for j in range(width):
                target[j] = source[j]
    if width < padded:
        for k in range(K):
            target = part(out, out_start + k * padded, padded)
            for j in range(width, padded):
                target[j] = zero


@inner
def packed(b: FloatArray, K: int, N: int, transposed: bool) -> FloatArray:
    """`pack` inside a kernel; b is flat."""
    out = np.empty(_packed_size(K, N, b.itemsize), b.dtype)
    for panel in range(_panel_count(N, b.itemsize)):
        start = panel * panel_columns(b.itemsize) * K
        _pack_panel(b, K if transposed else N, transposed, K, N, panel, out, start)
    return out


@kernel
def _pack(b: FloatArray, K: int, N: int, transposed: bool, out: FloatArray, first_panel: int, last_panel: int) -> None:
    """Panels first_panel to last_panel - 1 of B (K, N), or of B whose transpose (N, K) is given."""
    for panel in range(first_panel, last_panel):
        start = panel * panel_columns(b.itemsize) * K
        _pack_panel(b, K if transposed else N, transposed, K, N, panel, out, start)


def pack(b: FloatArray, *, transposed: bool = False) -> FloatArray:
    """B (K, N) as `product` takes it, flat; with transposed, its transpose (N, K) is given."""
    if b.flags.f_contiguous and not b.flags.c_contiguous:
        return pack(b.T, transposed=not transposed)
    K, N = b.shape[::-1] if transposed else b.shape
    out = np.empty(_packed_size(K, N, b.itemsize), b.dtype)
    source = flat(b)
    over_blocks(
        lambda first, last: _pack(source, K, N, transposed, out, first, last), _panel_count(N, b.itemsize), K * N
    )
    return out


@inner
def tile_scratch(like: FloatArray) -> FloatArray:
    """Room for one tile."""
    return np.empty(_TILE_ROWS * panel_columns(like.itemsize), like.dtype)


@inner
def _copy_tile(
    scratch: FloatArray, rows: int, width: int, padded: int, c: FloatArray, c_start: int, c_row: int, add: bool
) -> None:
    """The first columns of a tile whose last columns do not exist in C."""
    for r in range(rows):
        source = part(scratch, r * padded, width)
        target = part(c, c_start + r * c_row, width)
        if add:
            for j in range(width):
                target[j] += source[j]
        else:
            for j in range(width):
                target[j] = source[j]


@inner
def _panel_product(
    A: Rows, M: int, K: int, packed: FloatArray, start: int, N: int, C: Rows, add: bool, scratch: FloatArray, panel: int
) -> None:
    """The columns of one panel, which lies in packed from start on, of C = A B or, with add, C += A B."""
    a, a_start, a_row = A
    c, c_start, c_row = C
    lanes, columns = _VECTOR_BYTES // a.itemsize, panel_columns(a.itemsize)
    tiles = -(-M // _TILE_ROWS)
    padded = _padded_width(N, panel, a.itemsize)
    width = min(padded, N - panel * columns)
    wide, exact = padded == columns, padded == width
    for k in range(0, K, _DEPTH):
        depth = min(_DEPTH, K - k)
        adding = add or k > 0
        row = 0
        for tile in range(tiles):
            # Tiles of nearly equal height: two of 5 rows are faster than 6 and 4.
            rows = (M - row) // (tiles - tile)
            a_tile, c_tile = a_start + row * a_row + k, c_start + row * c_row + panel * columns
            target, target_start, target_row = (c, c_tile, c_row) if exact else (scratch, 0, padded)
            for column in range(0, padded, columns if wide else lanes):
                _tile(
                    rows,
                    wide,
                    a,
                    a_tile,
                    a_row,
                    packed,
                    start + k * padded + column,
                    padded,
                    depth,
                    target,
                    target_start + column,
                    target_row,
                    adding and exact,
                )
            if not exact:
                _copy_tile(scratch, rows, width, padded, c, c_tile, c_row, adding)
            row += rows


@inner
def product(A: Rows, M: int, K: int, packed: FloatArray, N: int, C: Rows, add: bool, scratch: FloatArray) -> None:
    """C = A B or, with add, C += A B.

    Parameters
    ----------
    A : (M, K)
    packed : flat array
        B (K, N) from `pack`; K > 0.
    C : (M, N)
    scratch : flat array
        From `tile_scratch`.
    """
    for panel in range(_panel_count(N, packed.itemsize)):
        start = panel * panel_columns(packed.itemsize) * K
        _panel_product(A, M, K, packed, start, N, C, add, scratch, panel)


@inner
def transpose(
    source: FloatArray, start: int, rows: int, columns: int, out: FloatArray, out_start: int, out_row: int
) -> None:
    """source (rows, columns), contiguous from start, transposed to out; its rows are out_row elements apart."""
    for row in range(0, rows, _BLOCK):
        height = min(_BLOCK, rows - row)
        for column in range(0, columns, _BLOCK):
            width = min(_BLOCK, columns - column)
            for r in range(row, row + height):
                values = part(source, start + r * columns + column, width)
                target = part(out, out_start + column * out_row + r, (width - 1) * out_row + 1)
                for j in range(width):
                    target[j * out_row] = values[j]


@kernel
def _multiply(
    first_panel: int, last_panel: int, A: Rows, M: int, K: int, B: Rows, transposed: bool, N: int, C: Rows, add: bool
) -> None:
    """The columns of panels first_panel to last_panel - 1 of C = A B, each packed when its turn comes."""
    b, _, b_row = B
    scratch = tile_scratch(b)
    packed = np.empty(K * panel_columns(b.itemsize), b.dtype)
    for panel in range(first_panel, last_panel):
        _pack_panel(b, b_row, transposed, K, N, panel, packed, 0)
        _panel_product(A, M, K, packed, 0, N, C, add, scratch, panel)


def _as_rows(matrix: FloatArray) -> Rows:
    """A view of a matrix whose rows are contiguous, or of a copy."""
    if not (matrix.flags.writeable and matrix.flags.aligned and matrix.strides[1] == matrix.itemsize):
        matrix = matrix.copy()
    rows, columns = matrix.shape
    row = matrix.strides[0] // matrix.itemsize
    if matrix.flags.c_contiguous:
        return Rows(matrix.reshape(-1), 0, columns)
    return Rows(as_strided(matrix, ((rows - 1) * row + columns,), (matrix.itemsize,)), 0, row)


def multiply(a: FloatArray, b: FloatArray, out: FloatArray, *, transposed: bool = False, add: bool = False) -> None:
    """out = A B or, with add, out += A B, on several threads if that pays.

    Parameters
    ----------
    a : (M, K)
    b : (K, N), or (N, K) with transposed
    out : (M, N)
        Of all three the rows must be contiguous, but not the whole.
    """
    (M, K), N = a.shape, out.shape[1]
    if K == 0 and not add:
        out[...] = 0
    if K == 0 or M == 0 or N == 0:
        return
    A, B, C = _as_rows(a), _as_rows(b), _as_rows(out)

    def work(first: int, last: int) -> None:
        _multiply(first, last, A, M, K, B, transposed, N, C, add)

    over_blocks(work, _panel_count(N, a.itemsize), M * K * N)
