"""Reads texts: one forward pass over the new tokens of several texts, with hooks, continues the Trace of each.

The network does not know that it is observed or changed. Each text continues from its trace so far; under edits, the
layers below the first edited one are copied from the unedited reading of the same text, if the trace holds one.
"""

# shapes: L layers, H query heads, G key heads, N new tokens of all texts of one pass, T tokens of a text, B texts with
#         one new token each, S keys or norm sites, K statistics, D features of a head, M features of a token

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial, reduce
from itertools import accumulate

import torch
from torch import Tensor, nn

from model import attention
from model.attention import AttentionFn, fused_attention
from model.edited import attention_fn, editing
from model.edits import NO_EDITS, Edits
from model.gpt import GPT
from model.norm import Norm
from model.sites import ObservedSite
from model.trace import Chunk, Trace

# Texts of up to this many tokens, with one new token each, attend in one padded batch. For longer ones the padding
# would cost more than the batch saves.
N_PADDED = 256


@torch.inference_mode()
def read(
    model: GPT, ids: Sequence[int], edits: Edits = NO_EDITS, sites: frozenset[ObservedSite] = frozenset()
) -> Trace:
    """The trace of one text, read from its beginning under edits, with these sites observed.

    Raises:
        ValueError: if there is no token, or there are more than the model's context; or if an edit names what this
            model or this text does not have.
    """
    edits.check_model(model.config)
    edits.check(len(ids))
    return read_batch(model, [(Trace(model, ()), ids)], edits, sites)[0]


@torch.inference_mode()
def read_batch(
    model: GPT,
    texts: Sequence[tuple[Trace, Sequence[int]]],
    edits: Edits = NO_EDITS,
    sites: frozenset[ObservedSite] = frozenset(),
) -> list[Trace]:
    """The traces of several texts, read in one forward pass: each is a trace so far, and the ids that follow it.

    The new tokens of all texts are concatenated without padding; only attention treats each text by itself. So the
    numbers of a text do not depend on the other texts. A reading knows only the tokens so far: whether the edits fit
    the whole text is for the caller to check (`Edits.check`).

    Raises:
        ValueError: if a text has no new token, or becomes longer than the model's context; if a trace is not one of
            these edits; if tokens attend to later ones and a text is not read whole in this pass.
    """
    traces = [trace.under(edits, trace.unedited) for trace, _ in texts]
    _check_texts(model, traces, [ids for _, ids in texts])
    starts, lengths = [trace.n_tokens for trace in traces], [len(ids) for _, ids in texts]
    ids_N = torch.tensor([id for _, ids in texts for id in ids], device=model.device)
    positions_N = torch.cat([torch.arange(start, start + n) for start, n in zip(starts, lengths, strict=True)])
    positions_N = positions_N.to(model.device)
    ragged = RaggedAttention(traces, lengths, edits)
    unedited = _unedited_rows(traces, texts, sites)
    with editing(model, edits, positions_N), observing(model, sites) as recorder:
        attention_fns = ragged.attention_fns(model.config.n_layers)
        if unedited is None:
            hidden_BNM = model.hidden(ids_N[None], positions_N, attention_fns)
        else:
            x_BNM = unedited.observed["block"][None, edits.first_layer - 1]
            hidden_BNM = hidden_from(model, edits.first_layer, x_BNM, positions_N, attention_fns)
    chunk = recorder.chunk(hidden_BNM[0])
    if unedited is not None:
        chunk = _on_lower_layers(unedited, chunk, sites)
    chunks = [chunk] if len(texts) == 1 else [chunk.slice(rows.start, rows.stop) for rows in ragged.rows]
    return [trace.append(new) for trace, new in zip(traces, chunks, strict=True)]


def hidden_from(
    model: GPT, layer: int, x_BTM: Tensor, positions_T: Tensor, attention_fns: Sequence[AttentionFn]
) -> Tensor:
    """What `GPT.hidden` returns, (B, T, M), from the residual stream before a layer on.

    `attention_fns` are those of all layers.
    """
    rotate = model.positions.rotation(positions_T)
    for block, attend in zip(model.blocks[layer:], attention_fns[layer:], strict=True):
        x_BTM = block(x_BTM, rotate, attend)
    return model.norm_final(x_BTM)  # type: ignore[no-any-return]


def _check_texts(model: GPT, traces: Sequence[Trace], texts: Sequence[Sequence[int]]) -> None:
    for trace, ids in zip(traces, texts, strict=True):
        n_tokens = trace.n_tokens + len(ids)
        if not (ids and n_tokens <= model.config.n_context):
            raise ValueError(f"{n_tokens} tokens; this model reads 1 to {model.config.n_context}")
        if trace.n_tokens and not trace.edits.is_causal:
            raise ValueError("without the causal mask, a text must be read whole in one pass")


def _unedited_rows(
    traces: Sequence[Trace], texts: Sequence[tuple[Trace, Sequence[int]]], sites: frozenset[ObservedSite]
) -> Chunk | None:
    """What the unedited readings hold of all rows of the pass; None if it is not all that the lower layers need."""
    chunks = []
    for trace, (_, ids) in zip(traces, texts, strict=True):
        unedited, first, last = trace.unedited, trace.n_tokens, trace.n_tokens + len(ids)
        if not (unedited and trace.edits.first_layer) or unedited.trace.n_tokens < last:
            return None
        if tuple(unedited.ids[first:last]) != tuple(ids) or not sites | {"block"} <= unedited.trace.sites:
            return None
        chunks.append(unedited.trace.rows(first, last))
    return reduce(Chunk.append, chunks)


def _on_lower_layers(unedited: Chunk, upper: Chunk, sites: frozenset[ObservedSite]) -> Chunk:
    """The rows of a pass that began at an upper layer, with the layers below it out of the unedited readings."""
    n_lower = len(unedited.queries_LHTD) - len(upper.queries_LHTD)

    def on_lower(lower: Tensor, upper: Tensor, n: int) -> Tensor:
        return torch.cat((lower[:n], upper))

    return Chunk(
        on_lower(unedited.queries_LHTD, upper.queries_LHTD, n_lower),
        on_lower(unedited.keys_LGTD, upper.keys_LGTD, n_lower),
        on_lower(unedited.values_LGTD, upper.values_LGTD, n_lower),
        on_lower(unedited.norms_STK, upper.norms_STK, 2 * n_lower),
        upper.hidden_TM,
        {
            site: unedited.observed[site]
            if site == "embedding"
            else on_lower(unedited.observed[site], upper.observed[site], n_lower)
            for site in sites
        },
    )


@torch.inference_mode()
def compute_last_logits(traces: Sequence[Trace]) -> None:
    """Compute the logits after the last token of several texts of one model in one matrix product, and store them.

    The unembedding is the largest matrix of the network; so it is read from memory once for all texts.
    """
    missing = [trace for trace in traces if trace.n_tokens - 1 not in trace._logits]
    if missing:
        last_RM = torch.stack([trace.chunks[-1].hidden_TM[-1] for trace in missing])
        for trace, logits_V in zip(missing, missing[0].model.unembed(last_RM).float(), strict=True):
            trace._logits[trace.n_tokens - 1] = logits_V.clone()  # its own memory, not a row of the whole matrix


class RaggedAttention:
    """Attention for the new tokens of several texts: each text attends to its own trace and to itself.

    `rows` holds the rows of the pass that belong to each text. Short texts with one new token each, which is what
    typing makes, attend in one batch, padded to the longest, unless an edit changes an attention function; every other
    text is computed separately.
    """

    def __init__(self, traces: Sequence[Trace], lengths: Sequence[int], edits: Edits = NO_EDITS) -> None:
        self._traces = traces
        self._edits = edits
        self.rows = [slice(end - n, end) for n, end in zip(lengths, accumulate(lengths), strict=True)]
        is_fused = not any(edits.touches_attention(layer) for layer in range(traces[0].model.config.n_layers))
        typed = [i for i, n in enumerate(lengths) if n == 1 and 0 < traces[i].n_tokens <= N_PADDED]
        self._batched = typed if len(typed) > 1 and is_fused else []
        self._separate = [i for i in range(len(lengths)) if i not in self._batched]
        if self._batched:
            self._pad([traces[i] for i in self._batched])

    def attention_fns(self, n_layers: int) -> list[AttentionFn]:
        """The attention function of each layer."""
        return [partial(self._attend, layer) for layer in range(n_layers)]

    def _pad(self, traces: Sequence[Trace]) -> None:
        """Copy the keys and values of all layers into one tensor, zero-padded, with room for the new token."""
        n_keys = 1 + max(trace.n_tokens for trace in traces)
        like_LGTD = traces[0].chunks[0].keys_LGTD
        n_layers, n_kv_heads, _, d_head = like_LGTD.shape
        self._keys = like_LGTD.new_zeros(n_layers, len(traces), n_kv_heads, n_keys, d_head)
        self._values = torch.zeros_like(self._keys)
        for text, trace in enumerate(traces):
            for offset, chunk in trace.with_offsets():
                at = slice(offset, offset + len(chunk))
                self._keys[:, text, :, at], self._values[:, text, :, at] = chunk.keys_LGTD, chunk.values_LGTD
        device = like_LGTD.device
        self._texts = torch.arange(len(traces), device=device)
        self._ends = torch.tensor([trace.n_tokens for trace in traces], device=device)
        self._key_mask_BS = torch.arange(n_keys, device=device) <= self._ends[:, None]
        self._new_rows = torch.tensor([self.rows[i].start for i in self._batched], device=device)

    def _attend(self, layer: int, q_BHND: Tensor, k_BGND: Tensor, v_BGND: Tensor) -> Tensor:
        if len(self._traces) == 1:
            return self._attend_separately(layer, 0, q_BHND, k_BGND, v_BGND)
        context_BHND = torch.empty_like(q_BHND)
        if self._batched:
            q_BHD, k_BGD, v_BGD = (
                x[0].index_select(1, self._new_rows).transpose(0, 1) for x in (q_BHND, k_BGND, v_BGND)
            )
            keys_BGSD, values_BGSD = self._keys[layer], self._values[layer]
            keys_BGSD[self._texts, :, self._ends], values_BGSD[self._texts, :, self._ends] = k_BGD, v_BGD
            context_BHTD = fused_attention(q_BHD.unsqueeze(2), keys_BGSD, values_BGSD, self._key_mask_BS)
            context_BHND[0, :, self._new_rows] = context_BHTD[:, :, 0].transpose(0, 1)
        for i in self._separate:
            new = (x[:, :, self.rows[i]] for x in (q_BHND, k_BGND, v_BGND))
            context_BHND[:, :, self.rows[i]] = self._attend_separately(layer, i, *new)
        return context_BHND

    def _attend_separately(self, layer: int, text: int, q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor) -> Tensor:
        if chunks := self._traces[text].chunks:
            k_BGTD = torch.cat([*(chunk.keys_LGTD[layer][None] for chunk in chunks), k_BGTD], dim=2)
            v_BGTD = torch.cat([*(chunk.values_LGTD[layer][None] for chunk in chunks), v_BGTD], dim=2)
        return attention_fn(self._edits, layer)(q_BHTD, k_BGTD, v_BGTD)


@dataclass
class Recorder:
    """What the hooks captured, in the order of the forward pass. Statistics are computed after the pass."""

    heads: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    norms: list[tuple[Norm, Tensor, Tensor]] = field(default_factory=list)
    outputs: dict[ObservedSite, list[Tensor]] = field(default_factory=dict)

    def record_heads(self, _: nn.Module, inputs: tuple[Tensor, Tensor, Tensor, AttentionFn], __: Tensor) -> None:
        """A forward hook of `Heads`: keep queries, keys and values."""
        q_BHND, k_BGND, v_BGND, *_attend = inputs
        self.heads.append((q_BHND[0], k_BGND[0], v_BGND[0]))

    def record_norm(self, norm: Norm, inputs: tuple[Tensor], output_BNM: Tensor) -> None:
        """A forward hook of a norm: keep its input and output."""
        self.norms.append((norm, inputs[0][0], output_BNM[0]))

    def record_output(self, site: ObservedSite, _: nn.Module, __: object, output_BNM: Tensor) -> None:
        """A forward hook of the module of a site: keep its output."""
        self.outputs[site].append(output_BNM[0])

    def chunk(self, hidden_NM: Tensor) -> Chunk:
        """All tokens of the pass as one chunk."""
        norms, inputs, outputs = zip(*self.norms, strict=True)
        statistics_SNK = norm_statistics(norms[0], torch.stack(inputs), torch.stack(outputs))
        queries, keys, values = map(torch.stack, zip(*self.heads, strict=True))
        observed = {site: torch.stack(tensors) for site, tensors in self.outputs.items() if tensors}
        return Chunk(queries, keys, values, statistics_SNK, hidden_NM, observed)


@contextmanager
def observing(model: GPT, sites: frozenset[ObservedSite] = frozenset()) -> Iterator[Recorder]:
    """Register hooks on the model for the duration of the context; they are removed even after an error."""
    recorder = Recorder(outputs={site: [] for site in sorted(sites)})
    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, attention.Heads):
                hooks.enter_context(module.register_forward_hook(recorder.record_heads))
            elif isinstance(module, Norm):
                hooks.enter_context(module.register_forward_hook(recorder.record_norm))
        for site in sites:
            for module in modules_of(model, site):
                hooks.enter_context(module.register_forward_hook(partial(recorder.record_output, site)))
        yield recorder


def modules_of(model: GPT, site: ObservedSite) -> list[nn.Module]:
    """The modules whose outputs are the vectors of a site: one per layer, or one for the embedding."""
    if site == "embedding":
        return [model.dropout]
    return [block if site == "block" else getattr(block, site) for block in model.blocks]


def norm_statistics(norm: Norm, input_TM: Tensor, output_TM: Tensor) -> Tensor:
    """Statistics of every token's vector before and after norms of one kind; (…, T, K), K as in STATISTICS; float32.

    Variances are biased (divided by M, not M - 1), as the norms themselves use them.
    """
    columns = []
    for x_TM in (input_TM.float(), norm.normalise(input_TM).float(), output_TM.float()):
        mean_T = x_TM.mean(dim=-1)
        # vector_norm instead of torch.var_mean, which took ten times as long at 512 tokens
        variance_T = torch.linalg.vector_norm(x_TM - mean_T[..., None], dim=-1).square() / x_TM.shape[-1]
        columns += [mean_T, variance_T]
    mean_T, variance_T, *rest = columns
    rms_T = torch.linalg.vector_norm(input_TM.float(), dim=-1) / input_TM.shape[-1] ** 0.5
    return torch.stack([mean_T, variance_T, rms_T, *rest], dim=-1)
