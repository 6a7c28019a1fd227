"""A frame: one reply with numbers in it that stays small. A JSON header and typed arrays after it.

    bytes 0–3            n, the length of the header, an unsigned little-endian integer
    bytes 4 to 3 + n     the header, JSON in UTF-8, filled up with spaces to a multiple of 8
    after it             the arrays, little-endian, each at the `offset` (from the end of the header) and in the
                         `dtype` and `shape` that the header's `arrays` gives it

static/frame.js reads it.
"""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

MEDIA_TYPE = "application/vnd.lookback.frame"


def encode(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Header and arrays as one frame.

    >>> encode({}, {"a": np.zeros(2, np.uint8)})[4:]
    b'{"arrays":{"a":{"dtype":"uint8","shape":[2],"offset":0}}}   \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00'
    """
    places, bodies, offset = {}, [], 0
    for name, array in arrays.items():
        body = np.ascontiguousarray(array).tobytes()
        places[name] = {"dtype": str(array.dtype), "shape": list(array.shape), "offset": offset}
        bodies.append(body.ljust(_up(len(body)), b"\0"))
        offset += len(bodies[-1])
    head = orjson.dumps({**header, "arrays": places}, option=orjson.OPT_SERIALIZE_NUMPY)
    head = head.ljust(_up(4 + len(head)) - 4)
    return b"".join([struct.pack("<I", len(head)), head, *bodies])


def decode(frame: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and arrays of a frame; what `encode` was given, with the header's `arrays` taken out."""
    (n_head,) = struct.unpack_from("<I", frame)
    header = orjson.loads(frame[4 : 4 + n_head])
    arrays = {
        name: np.frombuffer(
            frame, dtype=place["dtype"], count=int(np.prod(place["shape"])), offset=4 + n_head + place["offset"]
        ).reshape(place["shape"])
        for name, place in header.pop("arrays").items()
    }
    return header, arrays


def _up(n_bytes: int) -> int:
    """The next multiple of 8: typed arrays in a browser must begin at a multiple of their item size."""
    return -(-n_bytes // 8) * 8
