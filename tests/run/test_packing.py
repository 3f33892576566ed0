"""What is packed comes out bit by bit, and takes little room."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bigain.run.packing import packed, packed_numbers, unpacked

KINDS = ("?", "u1", "<u2", ">u2", "<u8", "<f4", ">f4", "<f8")


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(KINDS).flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes(max_dims=2, min_side=0))))
def test_arrays_come_out_as_they_went_in(values: np.ndarray) -> None:
    found = unpacked(packed(values))
    assert found.dtype == values.dtype.newbyteorder("=")
    assert found.tobytes() == values.astype(found.dtype).tobytes()
    assert found.flags.writeable


def test_a_view_that_is_not_contiguous_comes_out_row_by_row() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4).T
    assert unpacked(packed(values)).tolist() == values.ravel().tolist()


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [((), np.uint8), ((0, 255), np.uint8), ((256,), np.uint16), ((2**16,), np.uint32), ((2**40, 3), np.uint64)],
)
def test_numbers_take_the_smallest_type_that_holds_them(numbers: tuple[int, ...], kind: type) -> None:
    found = unpacked(packed_numbers(numbers))
    assert found.dtype == kind
    assert tuple(found.tolist()) == numbers


def test_numbers_below_0_are_refused() -> None:
    with pytest.raises(ValueError, match="numbers to keep must be at least 0, not -3"):
        packed_numbers((5, -3))


def test_errors_that_are_alike_take_less_room_than_by_zlib_alone() -> None:
    errors = (0.1 * (1 + 0.05 * np.random.default_rng(0).standard_normal(5000))).astype(np.float32)
    assert len(packed(errors)) < 0.9 * len(zlib.compress(errors.tobytes(), 9))
