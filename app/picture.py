"""What the page shows of a text, as the parts that turn what a client has into what it wants.

A client that has nothing gets everything. One that has the picture of a text that begins the same gets only what is
new: for an appended token a row of pixels of every head, a row of the chosen head, the token's norms and predictions.
The thumbnails of a long text come part by part, so that others get a turn in between. Pure but for torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app import figures, views
from app.errors import NoSuchPosition
from app.figures import Window
from app.models import Loaded
from app.schemas import PageRequest
from model.cache import shared_prefix_length
from model.config import Config
from model.tokenizer import Tokens
from model.trace import Trace, norm_sites

Part = tuple[dict[str, Any], dict[str, NDArray[Any]]]  # a frame's header and arrays

N_CELLS = 256  # a side of the chosen head's picture, at most; a longer text is shown with several tokens a cell,
N_POOLED = 200  # and then has at most so many: all of 2,048 tokens is to be less than 4 MB
PART_WEIGHTS = 8_000_000  # made for the thumbnails of one part: some tens of milliseconds


@dataclass
class Shown:
    """What a client has been sent."""

    model: str = ""  # its key
    ids: tuple[int, ...] = ()
    head: tuple[int, int, Window] | None = None  # layer, head and which cells of it
    step: int = 0  # tokens a pixel of the thumbnails
    known: list[int] = field(default_factory=list)  # how many of the tokens each layer's thumbnails show

    def turn_to(self, model: Loaded, ids: tuple[int, ...]) -> int:
        """Another text. How many of its first tokens the client has."""
        same = shared_prefix_length(self.ids, ids) if self.model == model.key else 0
        step = views.step_for(len(ids), views.N_THUMBNAIL)
        if not same or step != self.step:
            self.known = [0] * model.network.config.n_layers
        # the pixels that show a token that is gone are no longer right
        self.known = [n if n <= same else same // step * step for n in self.known]
        if not same:
            self.head = None
        self.model, self.ids, self.step = model.key, ids, step
        return same


def parts(
    trace: Trace, tokens: Tokens, model: Loaded, ask: PageRequest, shown: Shown, *, overview: bool = True
) -> Iterator[Part]:
    """What has to be sent, the most important first; `shown` follows. The last part's header says `done`.

    Without `overview`, thumbnails and norms are left out.

    Raises:
        NoSuchPosition: when the chosen query is behind the end.
    """
    n = len(tokens)
    query = n - 1 if ask.query is None else ask.query
    if query >= n:
        raise NoSuchPosition(query, n)
    n_before = len(shown.ids)
    same = shown.turn_to(model, tokens.ids)
    seen = views.tokens(tokens, same)
    window = window_of(ask.window, n)
    one, arrays = _head(trace, ask, window, shown, same)
    header: dict[str, Any] = {
        "model": model.name,
        "step": model.step,
        "device": str(model.network.device),
        "dtype": str(model.network.dtype).removeprefix("torch."),
        "n": n,
        "same": same,
        **seen,
        "layer": ask.layer,
        "head": ask.head,
        "stage": ask.stage,
        "query": query,
        "prediction": views.predictions(trace, tokens.ids, model.tokenizer, [query], 10)[0],
        "one": one,
        "figure": figures.head(window, ask.stage, model=model.title, layer=ask.layer, index=ask.head),
    }
    arrays |= views.row(trace, ask.layer, ask.head, query)
    plan = plan_of(model.network.config, n, shown) if overview else []
    if overview and not same == n == n_before:
        header["norms"], more = _norms(trace, model, same)
        arrays |= more
    for number, (layers, n_known) in enumerate(plan or [(range(0), n)]):
        if layers:
            grid, first = views.thumbnails(trace, layers, n_known)
            header["grid"] = {
                "layers": [layers.start, layers.stop],
                "step": shown.step,
                "from": n_known // shown.step,
                "known": n_known,
            }
            arrays |= {"grid": grid, "first": first}
            for layer in layers:
                shown.known[layer] = n
        yield header | {"done": number >= len(plan) - 1}, arrays
        header, arrays = {}, {}


def whole(parts: Sequence[Part]) -> Part:
    """The parts for a client that had nothing, as one."""
    (header, arrays), *rest = parts
    for name in ("grid", "first") if "grid" in header else ():
        arrays[name] = np.concatenate([arrays[name], *(more[name] for _, more in rest)])
        header["grid"]["layers"] = [0, len(arrays[name])]
    return header | {"done": True}, arrays


def window_of(asked: tuple[int, int, int, int] | None, n_tokens: int) -> Window:
    """The cells to show: what was asked for, as far as the text reaches, on borders that cells of one size share.

    >>> window_of(None, 7)
    Window(top=0, bottom=7, left=0, right=7, step=1)
    >>> window_of((100, 700, 3, 603), 1000)
    Window(top=100, bottom=700, left=0, right=603, step=4)
    """
    top, bottom, left, right = asked or (0, n_tokens, 0, n_tokens)
    bottom, right = min(bottom, n_tokens), min(right, n_tokens)
    if top >= bottom or left >= right:  # nothing of it is left
        top, bottom, left, right = 0, n_tokens, 0, n_tokens
    side = max(bottom - top, right - left)
    step = 1 if side <= N_CELLS else views.step_for(side, N_POOLED)
    return Window(top // step * step, bottom, left // step * step, right, step)


def plan_of(config: Config, n_tokens: int, shown: Shown) -> list[tuple[range, int]]:
    """Which layers' thumbnails to make together, and how many tokens of them the client has."""
    plan = []
    for n_known, group in groupby(range(config.n_layers), key=lambda layer: shown.known[layer]):
        if n_known < n_tokens:
            layers = list(group)
            first = n_known // shown.step * shown.step
            n_weights = config.n_heads * (n_tokens - first) * (n_tokens + first) // 2
            together = max(1, PART_WEIGHTS // n_weights)
            plan += [
                (range(begin, min(begin + together, layers[-1] + 1)), n_known)
                for begin in range(layers[0], layers[-1] + 1, together)
            ]
    return plan


def _head(
    trace: Trace, ask: PageRequest, window: Window, shown: Shown, same: int
) -> tuple[dict[str, Any] | None, dict[str, NDArray[Any]]]:
    """The chosen head's picture, or the rows and columns of it that are new; None where it is as it was."""
    n_cells = 0
    if shown.head and shown.head[:2] == (ask.layer, ask.head):
        had = shown.head[2]
        n_cells = n_right(had, window, same)
    shown.head = ask.layer, ask.head, window
    one = {"window": [window.top, window.bottom, window.left, window.right], "step": window.step, "from": n_cells}
    if n_cells and n_cells >= max(window.height, window.width):
        return (None if had == window else one), {}
    return one, dict(views.head(trace, ask.layer, ask.head, window, n_cells))


def n_right(had: Window, wanted: Window, same: int) -> int:
    """How many cells a side of the picture that is there are still right, if the first `same` tokens are."""
    if (had.top, had.left, had.step) != (wanted.top, wanted.left, wanted.step):
        return 0
    if had == wanted and same >= max(had.bottom, had.right):
        return max(had.height, had.width)
    if had.top or had.left or had.bottom != had.right or wanted.bottom != wanted.right:
        return 0  # part of a text is sent whole
    return min(had.bottom, wanted.bottom, same) // had.step


def _norms(trace: Trace, model: Loaded, same: int) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    statistics = views.norm_table(trace)
    sites = [site.name for site in norm_sites(model.network.config)]
    header = {"from": same, "figure": figures.norms(trace.n_tokens, sites, statistics, model=model.title)}
    return header, {name: values[same:] for name, values in statistics.items()}
