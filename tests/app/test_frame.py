"""Frames: what goes in comes out, and a browser can lay typed arrays over it."""

import json
import struct
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from app.live import frame

ARRAYS = st.dictionaries(
    st.text(min_size=1, max_size=8),
    hnp.arrays(st.sampled_from([np.uint8, np.float32]), hnp.array_shapes(max_dims=3, max_side=5)),
    max_size=4,
)


@given(st.dictionaries(st.text(max_size=8).filter(lambda key: key != "arrays"), st.text(max_size=20)), ARRAYS)
def test_what_goes_in_comes_out(header: dict[str, str], arrays: dict[str, Any]) -> None:
    found_header, found = frame.decode(frame.encode(header, arrays))
    assert found_header == header
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)


@given(ARRAYS)
def test_every_array_begins_at_a_multiple_of_eight(arrays: dict[str, Any]) -> None:
    encoded = frame.encode({"text": "é"}, arrays)
    (n_head,) = struct.unpack_from("<I", encoded)
    assert (4 + n_head) % 8 == 0
    assert all(place["offset"] % 8 == 0 for place in json.loads(encoded[4 : 4 + n_head])["arrays"].values())
