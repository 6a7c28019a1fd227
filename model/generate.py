"""Text generation: read the prompt, then choose and read one new token at a time.

Works on token ids; knows nothing of tokenizers. Each new token costs one row of a forward pass, because all earlier
tokens are in the trace of the text; the texts of a batch are computed in the same passes.
"""

# shapes: V tokens of the vocabulary, K candidates for the next token

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.cache import PrefixCache
from model.gpt import GPT
from model.reading import compute_last_logits, read_batch
from model.trace import Trace


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen from the logits: by default from the model's own distribution.

    Raises:
        ValueError: if a number is outside its range.
    """

    temperature: float = 1.0  # logits are divided by it; 0 always takes the most likely token
    top_k: int | None = None  # only this many of the most likely tokens are candidates; None for all
    top_p: float = 1.0  # of these, only the fewest whose probabilities sum to at least this (Holtzman et al. 2020)

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; it must be 0 or more, and finite")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}; it must be at least 1")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be more than 0 and at most 1")


GREEDY = Sampling(temperature=0.0)


@torch.inference_mode()
def next_token_candidates(logits_V: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The ids of the tokens that may come next, most likely first, and the probability of each; both (K,).

    Probabilities are float32 and sum to 1. Tokens excluded by `top_k` are left out; those excluded by `top_p` have
    probability 0.

    >>> ids, probabilities = next_token_candidates(torch.tensor([1.0, 3.0, 2.0]).log(), Sampling(top_k=2))
    >>> ids.tolist(), [round(p, 3) for p in probabilities.tolist()]
    ([1, 2], [0.6, 0.4])
    """
    if sampling.temperature == 0:
        return logits_V.argmax(-1, keepdim=True), torch.ones(1, device=logits_V.device)
    n_candidates = min(sampling.top_k or len(logits_V), len(logits_V))
    # subtracting the maximum changes no probability, and keeps a tiny temperature from overflowing
    logits_K, ids_K = (logits_V.float() - logits_V.max()).div(sampling.temperature).topk(n_candidates)
    probabilities_K = logits_K.softmax(-1)
    if sampling.top_p < 1:
        more_likely_K = probabilities_K.cumsum(-1) - probabilities_K  # sum over the more likely candidates
        probabilities_K = probabilities_K.masked_fill(more_likely_K >= sampling.top_p, 0.0)
    return ids_K, probabilities_K / probabilities_K.sum()


def sample_token(logits_V: Tensor, sampling: Sampling, generator: torch.Generator | None = None) -> int:
    """The id of a next token, drawn at random.

    `generator` must be one of the CPU, whatever the device of the logits, so that a seed gives the same text on every
    device; None is torch's global one. Temperature 0 draws nothing from it.
    """
    ids_K, probabilities_K = next_token_candidates(logits_V, sampling)
    if len(ids_K) == 1:
        return int(ids_K)
    return int(ids_K[probabilities_K.cpu().multinomial(1, generator=generator)])


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """The beginning of a text, and how its next tokens are chosen."""

    ids: Sequence[int]
    sampling: Sampling = Sampling()
    generator: torch.Generator | None = None  # as for `sample_token`


def generate(
    model: GPT,
    prompts: Sequence[Prompt],
    *,
    n_tokens: int,
    stop_ids: Collection[int] = (),
    cache: PrefixCache | None = None,
) -> Iterator[tuple[int, int]]:
    """Continue several texts at once, each by at most `n_tokens` tokens.

    Yields a pair for each new token, as soon as it is drawn: the number of its prompt (0 for the first) and its id.
    A text ends before the first token that is one of `stop_ids`. With a generator of its own, a text does not depend
    on the other texts of the batch, to within rounding.

    What `cache` holds of a prompt is not read again. Prompts are put into it, and whole texts when they have ended.

    Raises:
        ValueError: at once, if a prompt is empty or leaves no room for `n_tokens` tokens in the model's context, or if
            `n_tokens` is less than 1.
        NonFiniteNumber: while iterating, if a pass overflowed.
    """
    n_context = model.config.n_context
    if n_tokens < 1:
        raise ValueError(f"n_tokens is {n_tokens}; it must be at least 1")
    for prompt in prompts:
        if not prompt.ids:
            raise ValueError("a prompt has no tokens; it needs at least 1")
        if len(prompt.ids) + n_tokens > n_context:
            raise ValueError(
                f"a prompt of {len(prompt.ids)} tokens and {n_tokens} new ones are {len(prompt.ids) + n_tokens}; "
                f"this model reads at most {n_context}"
            )
    return _generate(model, prompts, n_tokens, frozenset(stop_ids), PrefixCache(0) if cache is None else cache)


def _generate(
    model: GPT, prompts: Sequence[Prompt], n_tokens: int, stop_ids: frozenset[int], cache: PrefixCache
) -> Iterator[tuple[int, int]]:
    texts = {number: list(prompt.ids) for number, prompt in enumerate(prompts)}
    traces = {number: _read_prompt(model, tuple(ids), cache) for number, ids in texts.items()}
    for n_left in reversed(range(n_tokens)):
        compute_last_logits(list(traces.values()))
        for number, trace in list(traces.items()):
            prompt, ids = prompts[number], texts[number]
            new_id = sample_token(trace.logits([trace.n_tokens - 1])[0], prompt.sampling, prompt.generator)
            if new_id not in stop_ids:
                ids.append(new_id)
                yield number, new_id
            if new_id in stop_ids or n_left == 0:
                cache.put(tuple(ids[: trace.n_tokens]), traces.pop(number))
        if not traces:
            return
        new_traces = read_batch(model, [(trace, texts[number][-1:]) for number, trace in traces.items()])
        traces = dict(zip(traces, new_traces, strict=True))


def _read_prompt(model: GPT, ids: tuple[int, ...], cache: PrefixCache) -> Trace:
    trace = cache.longest_prefix(model, ids)
    if trace.n_tokens < len(ids):
        (trace,) = read_batch(model, [(trace, ids[trace.n_tokens :])])
    compute_last_logits([trace])  # before the cache counts the bytes of the trace
    cache.put(ids, trace)
    return trace
