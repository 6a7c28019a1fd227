"""What a page shows after the frames that it was sent: static/picture.js itself, which a Node applies to them."""

import atexit
import base64
import itertools
import json
import struct
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.live import frame

Array = NDArray[Any]
NODE = Path(sys.executable).with_name("node")
PROGRAM = Path(__file__).parents[1] / "js" / "screen.js"
numbers = itertools.count()


@cache
def _node() -> subprocess.Popen[bytes]:
    """One process for all screens."""
    process = subprocess.Popen([NODE, PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    atexit.register(process.communicate)
    return process


class Screen:
    """What a client has after the frames that it was sent."""

    def __init__(self) -> None:
        self._number = next(numbers)

    def take(self, sent: bytes) -> None:
        """Change what is there by one frame."""
        stdin = _node().stdin
        assert stdin
        stdin.write(struct.pack("<II", 4 + len(sent), self._number) + sent)

    def apply(self, header: Mapping[str, object], arrays: dict[str, Array]) -> None:
        """The same for a frame that was not encoded yet."""
        self.take(frame.encode({"timings": {}, **header}, arrays))

    @property
    def picture(self) -> dict[str, Any]:
        """All of it, as picture.js describes it; arrays are flat."""
        self.take(b"")
        node = _node()
        assert node.stdin
        assert node.stdout
        node.stdin.flush()
        picture: dict[str, Any] = json.loads(node.stdout.readline(), object_hook=_unpacked)
        return picture


def tensors(named: dict[str, Any]) -> dict[str, Array]:
    """Arrays in their shapes."""
    return {name: tensor["values"].reshape(tensor["shape"]) for name, tensor in named.items()}


def thumbnails(picture: dict[str, Any]) -> Array:
    """All layers' thumbnails, cut to the text as it is now; (layers, heads, pixels, pixels)."""
    n = picture["header"]["n_tokens"]
    side = -(-n // picture["step"])
    layers = picture["layers"]
    assert [layer["nTokens"] for layer in layers] == [n] * len(layers)
    squares = [layer["pixels"].reshape(-1, layer["side"], layer["side"]) for layer in layers]
    return np.stack([square[:, :side, :side] for square in squares])


def to_first_token(picture: dict[str, Any]) -> Array:
    """The mean weight that each token gives the first one; (layers, tokens)."""
    return np.stack([layer["toFirstToken"][: picture["header"]["n_tokens"]] for layer in picture["layers"]])


def _unpacked(value: dict[str, Any]) -> Any:
    if set(value) != {"dtype", "base64"}:
        return value
    return np.frombuffer(base64.b64decode(value["base64"]), value["dtype"])
