"""Frames: decoding returns what was encoded, and a browser can use the arrays in place as typed arrays."""

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
def test_decoding_returns_what_was_encoded(header: dict[str, str], arrays: dict[str, Any]) -> None:
    decoded_header, decoded = frame.decode(frame.encode(header, arrays))
    assert decoded_header == header
    assert decoded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (decoded[name].dtype, decoded[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(decoded[name], array)


@given(ARRAYS)
def test_every_array_begins_at_a_multiple_of_eight(arrays: dict[str, Any]) -> None:
    encoded = frame.encode({"text": "é"}, arrays)
    (n_header,) = struct.unpack_from("<I", encoded)
    assert (4 + n_header) % 8 == 0
    assert all(entry["offset"] % 8 == 0 for entry in json.loads(encoded[4 : 4 + n_header])["arrays"].values())
