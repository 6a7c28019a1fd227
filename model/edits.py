"""What can be changed in a forward pass, as values: frozen, hashable, and written as they are in an address.

`scale:3.5:0,cut:11.7:2>1` sets head 5 of layer 3 to 0 and cuts what query 2 of head 7 of layer 11 gets from key 1. This
file says what an edit is; edited.py says what it does to the numbers. Positions, layers and heads count from 0.
"""

# shapes: H heads, T positions, D features of a head, M features of a token

import hashlib
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Literal, TypeVar, Union, get_args

import torch
from torch import Tensor

from model.config import Config
from model.sites import SITES, Site

QUERY_HEAD_SITES = ("queries", "scores", "context")
KEY_HEAD_SITES = ("keys", "values")
DropTarget = Literal["embedding", "weights", "attention", "mlp"]
DROP_TARGETS: tuple[DropTarget, ...] = get_args(DropTarget)

NEVER = sys.maxsize  # the first position and layer that editing nothing changes


@dataclass(frozen=True, eq=False)
class Values:
    """A tensor to add, with the name of where it came from. `strength` times the tensor is added.

    Two are equal if bytes, shape, dtype and strength are; the name does not count.
    """

    name: str
    tensor: Tensor
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.strength) and bool(self.tensor.isfinite().all())):
            raise ValueError(f"{self.name} has numbers that are not finite")

    @cached_property
    def digest(self) -> str:
        """What equality and hash depend on, as a hexadecimal number."""
        tensor = self.tensor.detach().cpu().contiguous()
        kind = f"{tensor.dtype} {tuple(tensor.shape)} {self.strength!r} ".encode()
        numbers = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        return hashlib.blake2b(kind + numbers, digest_size=16).hexdigest()

    @cached_property
    def is_zero(self) -> bool:
        """Whether nothing is added."""
        return self.strength == 0 or not self.tensor.any()

    def __eq__(self, value: object) -> bool:
        return isinstance(value, Values) and self.digest == value.digest

    def __hash__(self) -> int:
        return hash(self.digest)


@dataclass(frozen=True)
class Edit:
    """x -> scale·x + add, at one site and some positions: zero, scale, patch, steer.

    Raises:
        ValueError: if these fields do not go together.
    """

    site: Site
    layer: int | None  # None for the embedding
    heads: tuple[int, ...] | None = None  # key heads for keys and values; None for all; sites without heads have none
    first: int = 0
    last: int | None = None  # exclusive; None for the end of the text
    scale: float = 1.0
    add: Values | None = None  # broadcasts to (heads, positions, D); to (positions, M) at a site without heads

    def __post_init__(self) -> None:
        if self.site not in SITES:
            raise ValueError(f"{self.site!r} is no site; the sites are {', '.join(SITES)}")
        if (self.layer is None) != (self.site == "embedding"):
            raise ValueError("the embedding has no layer, and every other site has one")
        if self.heads is not None and not self.has_heads:
            raise ValueError(f"{self.site} has no heads")
        if self.heads is not None and len(set(self.heads)) < len(self.heads):
            raise ValueError(f"an edit of {self.site} names a head twice")
        if self.heads == () or self.first < 0 or (self.last is not None and self.last <= self.first):
            raise ValueError(f"an edit of {self.site} names no head or no position")
        if not math.isfinite(self.scale):
            raise ValueError(f"scale is {self.scale}; it must be finite")
        object.__setattr__(self, "scale", float(self.scale) + 0.0)  # -0.0 becomes 0.0
        self._check_add()

    def _check_add(self) -> None:
        if self.add is None:
            return
        shape = self.add.tensor.shape
        n_heads = shape[0] if len(shape) == 3 else 1
        if len(shape) > (3 if self.has_heads else 2) or n_heads not in (1, len(self.heads or [0] * n_heads)):
            raise ValueError(f"{self.add.name} is {tuple(shape)}, which does not fit the heads of this edit")
        n_rows = shape[-2] if len(shape) >= 2 else 1
        if n_rows != 1 and (self.last is None or self.last - self.first != n_rows):
            raise ValueError(f"{self.add.name} has {n_rows} rows; first and last must name as many positions")
        if self.site == "scores" and shape[-2:].numel() != 1:
            raise ValueError(f"{self.add.name} is {tuple(shape)}; scores take one number per head")

    @property
    def has_heads(self) -> bool:
        """Whether the site has one vector per head."""
        return self.site in QUERY_HEAD_SITES or self.site in KEY_HEAD_SITES

    @property
    def is_nothing(self) -> bool:
        """Whether x -> x."""
        return self.scale == 1 and (self.add is None or self.add.is_zero)

    def each_head(self) -> Iterator["Edit"]:
        """The same as one edit per head, with what each head adds."""
        add = None if self.add is None or self.add.is_zero else self.add
        for number, head in enumerate(self.heads or ()):
            by_head = add is not None and add.tensor.dim() == 3 and len(add.tensor) > 1
            own = replace(add, tensor=add.tensor[number : number + 1]) if add and by_head else add
            yield replace(self, heads=(head,), add=own)
        if self.heads is None:
            yield replace(self, add=add)

    def is_on(self, head: int) -> bool:
        """Whether it names a head, or all."""
        return self.heads is None or head in self.heads

    def on_head(self, head: int) -> "Edit":
        """What an edit of one head or of all does to this head, as an edit of vectors without heads."""
        add = self.add
        if add and add.tensor.dim() == 3:
            add = replace(add, tensor=add.tensor[head if len(add.tensor) > 1 else 0])
        return replace(self, heads=None, add=add)

    def overlaps(self, edit: "Edit") -> bool:
        """Whether both change the same numbers."""
        return (
            (self.site, self.layer) == (edit.site, edit.layer)
            and (self.heads is None or edit.heads is None or bool(set(self.heads) & set(edit.heads)))
            and self.first < (NEVER if edit.last is None else edit.last)
            and edit.first < (NEVER if self.last is None else self.last)
        )

    def __str__(self) -> str:
        everywhere = (self.first, self.last) == (0, None)
        if self.site == "context" and self.add is None and everywhere:
            return f"scale:{self.layer}.{_heads_text(self.heads)}:{_short(self.scale)}"
        if self.site == "block" and self.add and self.scale == 1 and everywhere and self.add.tensor.dim() == 1:
            return f"steer:{self.layer}:{self.add.name}:{_short(self.add.strength)}"
        place = f"{self.site}:{'' if self.layer is None else self.layer}.{_heads_text(self.heads)}"
        positions = f"{self.first}-{'' if self.last is None else self.last}"
        return f"edit:{place}:{positions}:{_short(self.scale)}:{self.add.name if self.add else ''}"


@dataclass(frozen=True)
class Cut:
    """One query of a head gets nothing from one key: -inf before the softmax."""

    layer: int
    head: int
    query: int
    key: int

    def __post_init__(self) -> None:
        if min(self.layer, self.head, self.query, self.key) < 0:
            raise ValueError("layers, heads and positions count from 0")

    def __str__(self) -> str:
        return f"cut:{self.layer}.{self.head}:{self.query}>{self.key}"


@dataclass(frozen=True)
class NoMask:
    """These heads attend to later tokens too. `layer` is None for all layers, `heads` for all heads."""

    layer: int | None = None
    heads: tuple[int, ...] | None = None

    def names(self, layer: int, head: int) -> bool:
        """Whether it is about this head."""
        return self.layer in (None, layer) and (self.heads is None or head in self.heads)

    def __str__(self) -> str:
        return f"nomask:{_layer_text(self.layer)}.{_heads_text(self.heads)}"


@dataclass(frozen=True)
class Temperature:
    """The scaled scores of these heads are divided by `value`: below 1 the weights are sharper, above it flatter."""

    layer: int | None
    heads: tuple[int, ...] | None
    value: float

    def __post_init__(self) -> None:
        if not 0 < self.value < math.inf:
            raise ValueError(f"a temperature is {_short(self.value)}; it must be more than 0, and finite")
        object.__setattr__(self, "value", float(self.value))

    def names(self, layer: int, head: int) -> bool:
        """Whether it is about this head."""
        return self.layer in (None, layer) and (self.heads is None or head in self.heads)

    def __str__(self) -> str:
        return f"temperature:{_layer_text(self.layer)}.{_heads_text(self.heads)}:{_short(self.value)}"


@dataclass(frozen=True)
class Drop:
    """Inverted dropout: numbers become 0 with probability `rate`, the others are divided by 1 - rate.

    Which ones depends only on seed, layer and position (for weights also on head and key). "attention" and "mlp" are
    what these add to the residual stream. `layers` is None for all; the embedding has none.
    """

    target: DropTarget
    layers: tuple[int, ...] | None
    rate: float
    seed: int

    def __post_init__(self) -> None:
        if self.target not in DROP_TARGETS:
            raise ValueError(f"{self.target!r} cannot be dropped; {', '.join(DROP_TARGETS)} can")
        if not 0 <= self.rate < 1:
            raise ValueError(f"a dropout rate is {_short(self.rate)}; it must be at least 0 and less than 1")
        if self.seed < 0:
            raise ValueError(f"a seed is {self.seed}; it must be 0 or more")
        if self.layers is not None and (self.target == "embedding" or not self.layers):
            raise ValueError(f"dropout of {self.target} names layers that it does not have")
        object.__setattr__(self, "rate", float(self.rate) + 0.0)
        object.__setattr__(self, "layers", self.layers and tuple(sorted(set(self.layers))))

    def __str__(self) -> str:
        layers = "" if self.layers is None else f"@{'+'.join(map(str, self.layers))}"
        return f"drop:{self.target}{layers}:{_short(self.rate)}:{self.seed}"


Change = Union[Edit, Cut, NoMask, Temperature, Drop]  # noqa: UP007 - a union of names for isinstance and docs
KINDS: tuple[type, ...] = get_args(Change)
C = TypeVar("C", bound=Change)
K = TypeVar("K")


@dataclass(frozen=True)
class Edits:
    """All that is changed in one pass, in a canonical order: equal changes are equal values with equal hashes.

    Changes that change nothing are left out. An edit of several heads becomes one edit per head.

    >>> edits = Edits((Cut(2, 0, query=3, key=1), Edit("context", 0, heads=(1, 0), scale=0.0)))
    >>> str(edits)
    'scale:0.0:0,scale:0.1:0,cut:2.0:3>1'
    >>> edits.first_position, edits.first_layer, bool(Edits((Temperature(None, None, 1.0),)))
    (0, 0, False)

    Raises:
        ValueError: if a change is given twice, if two changes give another result in another order, or if a query has
            no key left.
    """

    changes: tuple[Change, ...] = field(default=())

    def __post_init__(self) -> None:
        changes = sorted((part for change in self.changes for part in _canonical(change)), key=_sort_key)
        object.__setattr__(self, "changes", tuple(changes))
        _refuse_duplicates(changes)
        _refuse_conflicts(self.of(Edit))
        _refuse_conflicting_drops(self.of(Drop))
        self._check_cuts()

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __str__(self) -> str:
        return ",".join(map(str, self.changes))

    def of(self, kind: type[C]) -> tuple[C, ...]:
        """The changes of one kind."""
        return tuple(change for change in self.changes if isinstance(change, kind))

    @cached_property
    def first_position(self) -> int:
        """The first position with another number than in the unedited model; NEVER if nothing is edited."""
        return min((_first_position(change) for change in self.changes), default=NEVER)

    @cached_property
    def first_layer(self) -> int:
        """The first layer with another number than in the unedited model; 0 for the embedding."""
        return min((_first_layer(change) for change in self.changes), default=NEVER)

    @cached_property
    def is_causal(self) -> bool:
        """Whether no token attends to a later one."""
        return not self.of(NoMask)

    def touches_attention(self, layer: int) -> bool:
        """Whether the layer has another attention function: anything between scores and weights is changed."""
        return any(_touches_attention(change, layer) for change in self.changes)

    def at(self, site: Site, layer: int | None) -> tuple[Edit, ...]:
        """The edits of one site; a layer of None is the embedding's."""
        return self._by_site.get((site, layer), ())

    def drops(self, target: str, layer: int | None) -> tuple[Drop, ...]:
        """The dropout of one target in one layer."""
        return tuple(drop for drop in self.of(Drop) if drop.target == target and layer in (drop.layers or (layer,)))

    def cuts(self, layer: int) -> tuple[Cut, ...]:
        """The cuts in one layer."""
        return self._cuts_by_layer.get(layer, ())

    def touched_rows(self, layer: int, head: int, rows: range) -> list[int]:
        """The queries, out of some, of which a head computes other weights than from its queries and keys alone."""
        is_divided = any(temperature.names(layer, head) for temperature in self.of(Temperature))
        if is_divided or self.sees_later(layer, head) or self.drops("weights", layer):
            return list(rows)
        touched = {cut.query for cut in self.cuts(layer) if cut.head == head}
        for edit in self.at("scores", layer):
            if edit.heads in (None, (head,)):
                touched.update(range(edit.first, rows.stop if edit.last is None else edit.last))
        return sorted(touched.intersection(rows))

    @cached_property
    def _by_site(self) -> dict[tuple[Site, int | None], tuple[Edit, ...]]:
        return _grouped(self.of(Edit), lambda edit: (edit.site, edit.layer))

    @cached_property
    def _cuts_by_layer(self) -> dict[int, tuple[Cut, ...]]:
        return _grouped(self.of(Cut), lambda cut: cut.layer)

    def sees_later(self, layer: int, head: int) -> bool:
        """Whether a head has no causal mask."""
        return any(change.names(layer, head) for change in self.of(NoMask))

    def check(self, n_tokens: int) -> None:
        """Refuse positions that a text of this many tokens does not have.

        A reading in chunks knows only a part of the text, so whoever knows the whole text calls this before.

        Raises:
            ValueError: naming the edit and the length of the text; or the query that has no key left.
        """
        for change in self.changes:
            if _last_position(change) >= n_tokens:
                raise ValueError(
                    f"{change} names position {_last_position(change)}; this text has {n_tokens} tokens, "
                    f"and positions count from 0"
                )
        self._check_cuts(n_tokens)

    def check_model(self, config: Config) -> None:
        """Refuse layers and heads that a model does not have, and tensors of another size.

        Raises:
            ValueError: naming the edit and what the model has.
        """
        for change in self.changes:
            check_on_model(change, config)

    def _check_cuts(self, n_tokens: int | None = None) -> None:
        """Refuse cuts that cut nothing, and queries that have no key left."""
        keys: dict[tuple[int, int, int], list[int]] = defaultdict(list)
        for cut in self.of(Cut):
            later = self.sees_later(cut.layer, cut.head)
            if cut.key > cut.query and not later:
                raise ValueError(f"{cut}: query {cut.query} does not attend to the later key {cut.key} anyway")
            keys[cut.layer, cut.head, cut.query].append(cut.key)
        for (layer, head, query), cut_keys in keys.items():
            n_keys = n_tokens if self.sees_later(layer, head) else query + 1
            if n_keys is not None and len(cut_keys) >= n_keys:
                raise ValueError(f"query {query} of head {layer}.{head} has no key left; leave it at least one")


def _canonical(change: Change) -> Iterator[Change]:
    """The change without what changes nothing; an edit of several heads as one per head."""
    match change:
        case Edit():
            yield from (part for part in change.each_head() if not part.is_nothing)
        case Temperature(value=1.0) | Drop(rate=0.0):
            return
        case NoMask(heads=tuple()) | Temperature(heads=tuple()):
            yield from (replace(change, heads=(head,)) for head in change.heads or ())
        case _:
            yield change


def check_on_model(change: Change, config: Config) -> None:
    """Refuse a change of a layer, a head or a width that a model does not have.

    Raises:
        ValueError: with what the model has.
    """
    for layer in _layers(change):
        if layer >= config.n_layers:
            raise ValueError(f"{change} names layer {layer}; this model has layers 0 to {config.n_layers - 1}")
    of_keys = isinstance(change, Edit) and change.site in KEY_HEAD_SITES
    n_heads, kind = (config.n_kv_heads, "key heads") if of_keys else (config.n_heads, "heads")
    for head in _heads(change):
        if head >= n_heads:
            raise ValueError(f"{change} names head {head}; this model has {kind} 0 to {n_heads - 1}")
    if isinstance(change, Edit) and change.add and change.site != "scores":
        width, shape = config.d_head if change.has_heads else config.d_model, tuple(change.add.tensor.shape)
        if shape[-1:] not in ((width,), (1,), ()):
            raise ValueError(f"{change} adds a tensor of shape {shape}; its last axis must be {width}")


def _sort_key(change: Change) -> tuple[object, ...]:
    """By kind, then layer, site, head, position, size; None, which means all, comes first."""
    order = (KINDS.index(type(change)), *(_or_before(numbers) for numbers in (_layers(change), _heads(change))))
    match change:
        case Edit():
            digest = change.add.digest if change.add else ""
            return (
                *order[:2],
                SITES.index(change.site),
                order[2],
                change.first,
                _last_position(change),
                change.scale,
                digest,
            )
        case Cut():
            return (*order, change.query, change.key)
        case Temperature():
            return (*order, change.value)
        case Drop():
            return (*order, change.target, change.rate, change.seed)
    return order


def _or_before(numbers: Sequence[int]) -> tuple[int, ...]:
    return tuple(numbers) or (-1,)


def _grouped(changes: Iterable[C], key: Callable[[C], K]) -> dict[K, tuple[C, ...]]:
    """The changes by a key, in their order."""
    groups: dict[K, list[C]] = defaultdict(list)
    for change in changes:
        groups[key(change)].append(change)
    return {name: tuple(group) for name, group in groups.items()}


def _layers(change: Change) -> tuple[int, ...]:
    """The layers that a change names; none if it means all."""
    if isinstance(change, Drop):
        return change.layers or ()
    return () if change.layer is None else (change.layer,)


def _heads(change: Change) -> tuple[int, ...]:
    """The heads that a change names; none if it means all."""
    match change:
        case Cut():
            return (change.head,)
        case Drop():
            return ()
    return change.heads or ()


def _first_position(change: Change) -> int:
    match change:
        case Edit():
            return change.first
        case Cut():
            return change.query
    return 0


def _last_position(change: Change) -> int:
    """The last position that a change names; -1 if it names none."""
    match change:
        case Edit():
            return (change.last or (change.first + 1 if change.first else 0)) - 1
        case Cut():
            return max(change.query, change.key)
    return -1


def _first_layer(change: Change) -> int:
    return min(_layers(change), default=0)


def _touches_attention(change: Change, layer: int) -> bool:
    if isinstance(change, Edit) and change.site != "scores":
        return False
    if isinstance(change, Drop) and change.target != "weights":
        return False
    return layer in (_layers(change) or (layer,))


def _refuse_duplicates(changes: Iterable[Change]) -> None:
    before = None
    for change in changes:  # sorted, so equal ones are neighbours
        if change == before:
            is_same_text = str(change) == str(before)
            raise ValueError(f"{change} is there twice" if is_same_text else f"{before} and {change} are the same")
        before = change


def _refuse_conflicts(edits: Sequence[Edit]) -> None:
    """Refuse edits of the same numbers whose order matters: only factors commute, and only additions."""
    for neighbours in _grouped(edits, lambda edit: (edit.site, edit.layer)).values():
        for a, b in combinations(neighbours, 2):
            commute = (a.add is None and b.add is None) or (a.scale == 1 and b.scale == 1)
            if a.overlaps(b) and not commute:
                raise ValueError(f"{a} and {b} change the same numbers, and their order would matter")


def _refuse_conflicting_drops(drops: Sequence[Drop]) -> None:
    for a, b in combinations(drops, 2):
        if a.target == b.target and (a.layers is None or b.layers is None or set(a.layers) & set(b.layers)):
            raise ValueError(f"{a} and {b} drop the same numbers; give one rate and one seed")


def _short(x: float) -> str:
    """A number as short as it can be written and read back; without a plus sign, which is a space in an address."""
    return repr(float(x)).removesuffix(".0").replace("e+", "e")


def _heads_text(heads: tuple[int, ...] | None) -> str:
    return "*" if heads is None else "+".join(map(str, heads))


def _layer_text(layer: int | None) -> str:
    return "*" if layer is None else str(layer)


NO_EDITS = Edits()
