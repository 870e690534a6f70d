"""Time series as windows, and their scaling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastlstm.datasets import Scaling, windows


def test_windows_are_pieces_and_what_follows() -> None:
    xs, ts = windows(range(7), 3, 2)
    assert (xs.shape, ts.shape) == ((3, 3, 1), (3, 2, 1))
    np.testing.assert_array_equal(xs[..., 0], [[0, 1, 2], [1, 2, 3], [2, 3, 4]])
    np.testing.assert_array_equal(ts[..., 0], [[3, 4], [4, 5], [5, 6]])
    series = np.arange(20, dtype=np.float32).reshape(10, 2)
    xs, ts = windows(series, 2, 1, stride=3)
    assert xs.dtype == np.float32
    assert ts.shape == (3, 1, 2)
    np.testing.assert_array_equal(xs[1], series[3:5])
    np.testing.assert_array_equal(ts[1], series[5:6])
    xs[:] = 0
    assert series[1, 1] == 3  # a copy


def test_columns_of_pandas_are_series() -> None:
    pandas: Any = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame({"a": [1, 2, 3], "b": [4.0, 5, 6]}, index=[5, 6, 7])
    np.testing.assert_array_equal(windows(frame, 1, 1).xs, [[[1, 4]], [[2, 5]]])
    np.testing.assert_array_equal(windows(frame["a"], 2, 1).ts, [[[3]]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: windows(range(4), 3, 2), ValueError, "series has 4 steps, expected at least 5: steps_in = 3"),
        (lambda: windows(["a"], 1, 1), TypeError, "series is list .*, expected numbers"),
        (lambda: windows(np.zeros((2, 2, 2)), 1, 1), ValueError, r"shape \(2, 2, 2\), expected \(steps,\) or"),
        (lambda: windows([1, np.nan, 2], 1, 1), ValueError, "series holds nan at step 1, expected finite numbers"),
        (lambda: windows(range(4), 0, 1), ValueError, "steps_in is 0"),
        (lambda: windows(range(4), 1, 1, stride=0), ValueError, "stride is 0"),
        (lambda: Scaling.of([]), ValueError, "series has no steps"),
    ],
)
def test_what_is_no_series(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_scaling_is_undone() -> None:
    series = np.array([[1.0, 7], [3, 7], [5, 7]])
    scaling = Scaling.of(series)
    scaled = scaling.apply(series)
    np.testing.assert_allclose(scaled[:, 0].mean(), 0, atol=1e-12)
    np.testing.assert_allclose(scaled[:, 0].std(), 1)
    np.testing.assert_array_equal(scaled[:, 1], 0)  # what is always the same
    np.testing.assert_allclose(scaling.undo(scaled), series)
