"""A frame: one message with a JSON header and typed arrays, small because the numbers are binary.

    bytes 0–3            n, the length of the header, an unsigned little-endian integer
    bytes 4 to 3 + n     the header, JSON in UTF-8, padded with spaces so that the arrays begin at a multiple of 8
    the rest             the arrays, little-endian, each at the `offset` (from the end of the header) and in the
                         `dtype` and `shape` that the header's `arrays` gives it

static/frame.js reads it.
"""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

FRAME_MEDIA_TYPE = "application/vnd.lookback.frame"
FRAME_VERSION = 2  # of the header's fields; it stands in the addresses, /api/v2/live and /api/v2/view
Array = NDArray[np.float32] | NDArray[np.uint8]


def encode(header: Mapping[str, object], arrays: Mapping[str, Array]) -> bytes:
    """Header and arrays as one frame.

    >>> encode({}, {"a": np.zeros(2, np.uint8)})[4:]
    b'{"arrays":{"a":{"dtype":"uint8","shape":[2],"offset":0}}}   \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00'
    """
    layout, bodies, offset = {}, [], 0
    for name, array in arrays.items():
        body = np.ascontiguousarray(array).tobytes()
        layout[name] = {"dtype": str(array.dtype), "shape": list(array.shape), "offset": offset}
        bodies.append(body.ljust(_round_up(len(body)), b"\0"))
        offset += len(bodies[-1])
    head = orjson.dumps({**header, "arrays": layout}, option=orjson.OPT_SERIALIZE_NUMPY)
    head = head.ljust(_round_up(4 + len(head)) - 4)
    return b"".join([struct.pack("<I", len(head)), head, *bodies])


def decode(frame: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and arrays of a frame: what `encode` was given."""
    (n_header,) = struct.unpack_from("<I", frame)
    header = orjson.loads(frame[4 : 4 + n_header])
    arrays = {
        name: np.frombuffer(
            frame, dtype=entry["dtype"], count=int(np.prod(entry["shape"])), offset=4 + n_header + entry["offset"]
        ).reshape(entry["shape"])
        for name, entry in header.pop("arrays").items()
    }
    return header, arrays


def _round_up(n_bytes: int) -> int:
    """The next multiple of 8: typed arrays in a browser must begin at a multiple of their item size."""
    return -(-n_bytes // 8) * 8
