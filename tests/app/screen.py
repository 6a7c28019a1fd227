"""What a page shows after it received frames, computed by the page's own script, static/client_state.js, in Node."""

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
    """The Node process, one for all screens."""
    process = subprocess.Popen([NODE, PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    atexit.register(process.communicate)
    return process


class Screen:
    """The screen of one client."""

    def __init__(self) -> None:
        self._number = next(numbers)

    def receive(self, encoded: bytes) -> None:
        """Apply an encoded frame."""
        stdin = _node().stdin
        assert stdin
        stdin.write(struct.pack("<II", 4 + len(encoded), self._number) + encoded)

    def apply(self, header: Mapping[str, object], arrays: dict[str, Array]) -> None:
        """Apply a frame that is not encoded yet."""
        self.receive(frame.encode({"timings": {}, **header}, arrays))

    @property
    def client_state(self) -> dict[str, Any]:
        """All that the screen shows, as client_state.js describes it; arrays are flat."""
        self.receive(b"")
        node = _node()
        assert node.stdin
        assert node.stdout
        node.stdin.flush()
        client_state: dict[str, Any] = json.loads(node.stdout.readline(), object_hook=_decode_array)
        return client_state


def tensors(arrays: dict[str, Any]) -> dict[str, Array]:
    """The arrays in their shapes."""
    return {name: tensor["values"].reshape(tensor["shape"]) for name, tensor in arrays.items()}


def thumbnails(client_state: dict[str, Any]) -> Array:
    """The thumbnails of all layers, cut to the current text; (layers, heads, pixels, pixels)."""
    n = client_state["header"]["n_tokens"]
    side = -(-n // client_state["pixelSize"])
    layers = client_state["layers"]
    assert [layer["nTokens"] for layer in layers] == [n] * len(layers)
    squares = [layer["pixels"].reshape(-1, layer["side"], layer["side"]) for layer in layers]
    return np.stack([square[:, :side, :side] for square in squares])


def to_first_token(client_state: dict[str, Any]) -> Array:
    """The mean weight that each token gives the first one; (layers, tokens)."""
    return np.stack([layer["toFirstToken"][: client_state["header"]["n_tokens"]] for layer in client_state["layers"]])


def _decode_array(value: dict[str, Any]) -> Any:
    if set(value) != {"dtype", "base64"}:
        return value
    return np.frombuffer(base64.b64decode(value["base64"]), value["dtype"])
