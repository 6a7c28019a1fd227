"""What the page shows of a text, as frames that change what a client has into what it wants.

A client that has nothing gets everything. A client that has a text with the same beginning gets only what is new: for
an appended token one row of pixels of every head, one row of the chosen head, and the norms and predictions of that
token. The thumbnails of a long text come in several frames, so that other clients are served in between.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from app import figures, views
from app.errors import NoSuchPosition
from app.figures import Window
from app.live.frame import Array
from app.models import LoadedModel, ModelInput
from app.schemas import PageRequest
from model.cache import shared_prefix_length
from model.config import Config
from model.edits import NO_EDITS, Edits
from model.sites import Stage, norm_sites
from model.trace import Trace

N_CELLS = 256  # cells per side of the chosen head's heatmap, at most; larger windows have several tokens per cell
N_POOLED = 200  # cells per side if a cell covers several tokens, at most: all of 2,048 tokens then takes less than 4 MB
FRAME_WEIGHTS = 8_000_000  # weights computed for the thumbnails of one frame: some tens of milliseconds
N_NEXT_TOKENS = 10  # next tokens

HeatmapHeader = TypedDict("HeatmapHeader", {"window": list[int], "cell_size": int, "from": int})
GridHeader = TypedDict("GridHeader", {"layers": list[int], "pixel_size": int, "from": int, "n_sent": int})
NormsHeader = TypedDict("NormsHeader", {"from": int, "figure": figures.Figure})


class FrameHeader(TypedDict, total=False):
    """The header of a frame; only the first frame of a reply has all of it. openapi.py describes the fields."""

    model: str
    step: int | None
    edits: str
    text: str | None
    device: str
    dtype: str
    n_tokens: int
    n_shared: int
    tokens: list[views.TokenFields]
    dropped: list[views.DroppedFields]
    layer: int
    head: int
    stage: Stage
    query: int
    prediction: views.PredictionFields
    heatmap: HeatmapHeader | None
    figure: figures.Figure
    norms: NormsHeader
    grid: GridHeader
    done: bool


Arrays = dict[str, Array]
Frame = tuple[FrameHeader, Arrays]


@dataclass
class ClientState:
    """What a client has been sent."""

    model: str = ""  # its key, and whether it read a text or ids: their tokens may count characters differently
    ids: tuple[int, ...] = ()
    sent_head: tuple[int, int, Window] | None = None  # layer, head and the window of it
    pixel_size: int = 0  # tokens per pixel of the thumbnails
    n_sent: list[int] = field(default_factory=list)  # tokens that the thumbnails of each layer cover
    edits: Edits = NO_EDITS  # under which the text was read

    def switch_text(self, given: ModelInput) -> int:
        """Switch to another text, and return how many of its first tokens the client already has.

        Under other edits it has none. If a head has no mask, each later token changes all that is before it.
        """
        ids, edits, n_shared = given.tokens.ids, given.edits, 0
        model = f"{given.model.key} {'text' if given.text_of_ids is None else 'ids'}"
        if (self.model, self.edits) == (model, edits) and (edits.is_causal or self.ids == ids):
            n_shared = shared_prefix_length(self.ids, ids)
        pixel_size = views.block_size_for(len(ids), views.N_THUMBNAIL)
        if not n_shared or pixel_size != self.pixel_size:
            self.n_sent = [0] * given.model.network.config.n_layers
        # pixels that cover a removed token are no longer right
        self.n_sent = [n if n <= n_shared else n_shared // pixel_size * pixel_size for n in self.n_sent]
        if not n_shared:
            self.sent_head = None
        self.model, self.edits, self.ids, self.pixel_size = model, edits, ids, pixel_size
        return n_shared


def frames(
    trace: Trace, given: ModelInput, request: PageRequest, client: ClientState, *, overview: bool = True
) -> Iterator[Frame]:
    """The frames to send, the most important first; `client` is updated. `done` is true in the last one.

    Without `overview`, thumbnails and norms are left out.

    Raises:
        NoSuchPosition: if the chosen query is after the end.
    """
    model, tokens, edits, text_of_ids = given
    n = len(tokens)
    query = n - 1 if request.query is None else request.query
    if query >= n:
        raise NoSuchPosition(query, n)
    n_before = len(client.ids)
    n_shared = client.switch_text(given)
    text = views.tokens(tokens, n_shared)
    window = window_of(request.window, n)
    heatmap, arrays = _heatmap(trace, request, window, client, n_shared)
    header: FrameHeader = {
        "model": model.name,
        "step": model.step,
        "edits": str(edits),
        "text": text_of_ids,
        "device": str(model.network.device),
        "dtype": str(model.network.dtype).removeprefix("torch."),
        "n_tokens": n,
        "n_shared": n_shared,
        "tokens": text["tokens"],
        "dropped": text["dropped"],
        "layer": request.layer,
        "head": request.head,
        "stage": request.stage,
        "query": query,
        "prediction": views.predictions(trace, tokens.ids, model.tokenizer, [query], N_NEXT_TOKENS)[0],
        "heatmap": heatmap,
        "figure": figures.head_figure(
            window,
            request.stage,
            views.head_mask(edits, request.layer, request.head),
            model=model.title,
            layer=request.layer,
            head=request.head,
        ),
    }
    arrays |= views.row(trace, request.layer, request.head, query)
    plan = thumbnail_plan(model.network.config, n, client) if overview else []
    if overview and not n_shared == n == n_before:
        header["norms"], norms = _norms(trace, model, n_shared)
        arrays |= norms
    for number, (layers, n_sent) in enumerate(plan or [(range(0), n)]):
        if layers:
            header["grid"], thumbnails = _grid(trace, layers, n_sent, client)
            arrays |= thumbnails
        header["done"] = number >= len(plan) - 1
        yield header, arrays
        header, arrays = {}, {}


def merge_frames(frames: Sequence[Frame]) -> Frame:
    """All frames of a reply to a client that had nothing, as one frame."""
    (header, arrays), *rest = frames
    names: tuple[Literal["grid", "to_first_token"], ...] = ("grid", "to_first_token")
    for name in names if "grid" in header else ():
        arrays[name] = np.concatenate([arrays[name], *(later[name] for _, later in rest)])
        header["grid"]["layers"] = [0, len(arrays[name])]
    header["done"] = True
    return header, arrays


def window_of(requested: tuple[int, int, int, int] | None, n_tokens: int) -> Window:
    """The requested cells as far as the text reaches, aligned to whole cells; the whole text if None.

    >>> window_of(None, 7)
    Window(top=0, bottom=7, left=0, right=7, cell_size=1)
    >>> window_of((100, 700, 3, 603), 1000)
    Window(top=100, bottom=700, left=0, right=603, cell_size=4)
    """
    top, bottom, left, right = requested or (0, n_tokens, 0, n_tokens)
    bottom, right = min(bottom, n_tokens), min(right, n_tokens)
    if top >= bottom or left >= right:  # the text has become shorter than that
        top, bottom, left, right = 0, n_tokens, 0, n_tokens
    side = max(bottom - top, right - left)
    size = 1 if side <= N_CELLS else views.block_size_for(side, N_POOLED)
    return Window(top // size * size, bottom, left // size * size, right, size)


def thumbnail_plan(config: Config, n_tokens: int, client: ClientState) -> list[tuple[range, int]]:
    """Which layers' thumbnails to compute together, and how many tokens of them the client already has."""
    plan = []
    for n_sent, group in groupby(range(config.n_layers), key=lambda layer: client.n_sent[layer]):
        if n_sent < n_tokens:
            layers = list(group)
            first = n_sent // client.pixel_size * client.pixel_size
            n_weights = config.n_heads * (n_tokens - first) * (n_tokens + first) // 2
            n_layers = max(1, FRAME_WEIGHTS // n_weights)
            plan += [
                (range(begin, min(begin + n_layers, layers[-1] + 1)), n_sent)
                for begin in range(layers[0], layers[-1] + 1, n_layers)
            ]
    return plan


def _grid(trace: Trace, layers: range, n_sent: int, client: ClientState) -> tuple[GridHeader, Arrays]:
    """The thumbnails of some layers that are new to the client."""
    pixels, to_first_token = views.thumbnails(trace, layers, n_sent)
    for layer in layers:
        client.n_sent[layer] = trace.n_tokens
    header: GridHeader = {
        "layers": [layers.start, layers.stop],
        "pixel_size": client.pixel_size,
        "from": n_sent // client.pixel_size,
        "n_sent": n_sent,
    }
    return header, {"grid": pixels, "to_first_token": to_first_token}


def _heatmap(
    trace: Trace, request: PageRequest, window: Window, client: ClientState, n_shared: int
) -> tuple[HeatmapHeader | None, Arrays]:
    """The cells of the chosen head that are new to the client; None if it has them all."""
    n_cells, before = 0, None
    if client.sent_head and client.sent_head[:2] == (request.layer, request.head):
        before = client.sent_head[2]
        n_cells = n_reusable_cells(before, window, n_shared)
    client.sent_head = request.layer, request.head, window
    header: HeatmapHeader = {
        "window": [window.top, window.bottom, window.left, window.right],
        "cell_size": window.cell_size,
        "from": n_cells,
    }
    if n_cells and n_cells >= max(window.height, window.width):
        return (None if before == window else header), {}
    return header, dict(views.head_cells(trace, request.layer, request.head, window, n_cells))


def n_reusable_cells(before: Window, wanted: Window, n_shared: int) -> int:
    """Cells per side of the client's heatmap that are still right if the first `n_shared` tokens are unchanged."""
    if (before.top, before.left, before.cell_size) != (wanted.top, wanted.left, wanted.cell_size):
        return 0
    if before == wanted and n_shared >= max(before.bottom, before.right):
        return max(before.height, before.width)
    if before.top or before.left or before.bottom != before.right or wanted.bottom != wanted.right:
        return 0  # a window of part of the text is always sent whole
    return min(before.bottom, wanted.bottom, n_shared) // before.cell_size


def _norms(trace: Trace, model: LoadedModel, n_shared: int) -> tuple[NormsHeader, dict[str, NDArray[np.float32]]]:
    statistics = views.norm_table(trace)
    sites = [site.name for site in norm_sites(model.network.config)]
    figure = figures.norms_figure(trace.n_tokens, sites, statistics, model=model.title)
    header: NormsHeader = {"from": n_shared, "figure": figure}
    return header, {name: values[n_shared:] for name, values in statistics.items()}
