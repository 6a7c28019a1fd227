"""A client of the live channel, in Python: applies the parts that picture.py makes, as static/picture.js does."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Screen:
    """What a client has after the parts that it was sent."""

    def __init__(self) -> None:
        self.tokens: list[dict[str, Any]] = []
        self.header: dict[str, Any] = {}
        self.head: dict[str, Array] = {}
        self.row: dict[str, Array] = {}
        self.norms: dict[str, Array] = {}
        self.grid: dict[int, Array] = {}  # layer -> heads × pixels × pixels
        self.first: dict[int, Array] = {}
        self.step = 0

    def apply(self, header: dict[str, Any], arrays: dict[str, Array]) -> None:
        """Change what is there by one part."""
        if "same" in header:
            self._turn_to(header, arrays)
        if grid := header.get("grid"):
            self._thumbnails(grid, arrays)

    def _turn_to(self, header: dict[str, Any], arrays: dict[str, Array]) -> None:
        self.header = header
        self.tokens = self.tokens[: header["same"]] + header["tokens"]
        assert len(self.tokens) == header["n"]
        if one := header["one"]:
            stages = [*(["masked"] if one["step"] > 1 else []), "scores", "scaled", "weights"]
            self.head = {name: self._grown(name, one, arrays) for name in stages}
        self.row = {name: arrays[f"row_{name}"] for name in ("scores", "scaled", "weights")}
        if norms := header.get("norms"):
            for name in ("mean", "variance", "rms"):
                had = self.norms.get(name, np.empty((0, arrays[name].shape[1]), np.float32))
                self.norms[name] = np.concatenate([had[: norms["from"]], arrays[name]])

    def _grown(self, name: str, one: dict[str, Any], arrays: dict[str, Array]) -> Array:
        top, bottom, left, right = one["window"]
        known, step = one["from"], one["step"]
        grown = np.zeros((-(-(bottom - top) // step), -(-(right - left) // step)), np.float32)
        if known:
            grown[:known, :known] = self.head[name][:known, :known]
        if name in arrays:
            grown[known:] = arrays[name]
        if f"{name}_columns" in arrays:
            grown[:known, known:] = arrays[f"{name}_columns"]
        return grown

    def _thumbnails(self, grid: dict[str, Any], arrays: dict[str, Array]) -> None:
        n = self.header["n"]
        side = -(-n // grid["step"])
        if grid["step"] != self.step:
            self.grid, self.first, self.step = {}, {}, grid["step"]
        for index, layer in enumerate(range(*grid["layers"])):
            rows = arrays["grid"][index]
            picture = np.zeros((len(rows), side, side), np.uint8)
            if known := grid["from"]:
                picture[:, :known, :known] = self.grid[layer][:, :known, :known]
            picture[:, known:] = rows
            if grid["known"] % self.step:  # of this row of pixels the upper part is there
                upper = self.grid[layer][:, known, :side]
                picture[:, known, : upper.shape[1]] = np.maximum(picture[:, known, : upper.shape[1]], upper)
            self.grid[layer] = picture
            had = self.first.get(layer, np.empty(0, np.float32))
            self.first[layer] = np.concatenate([had[: grid["known"]], arrays["first"][index]])

    def thumbnails(self) -> Array:
        """All layers' thumbnails, cut to the text as it is now; (layers, heads, pixels, pixels)."""
        side = -(-self.header["n"] // self.step)
        return np.stack([self.grid[layer][:, :side, :side] for layer in sorted(self.grid)])

    def shares(self) -> Array:
        """The mean share that each token gives the first; (layers, tokens)."""
        return np.stack([self.first[layer][: self.header["n"]] for layer in sorted(self.first)])
