"""What a head does, as numbers: its mean attention weight on the previous token, the first token, and so on.

A score of 1 means that the head attends to nothing else, 0 that it never does.
"""

# shapes: B texts, T tokens, P patterns, L layers, H heads, V tokens of the vocabulary

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from model.gpt import GPT
from model.reading import read
from model.trace import Trace

TextPattern = Literal["previous token", "current token", "first token", "same token before"]  # defined on any text
TEXT_PATTERNS: tuple[TextPattern, ...] = get_args(TextPattern)
ProbePattern = Literal["previous", "first", "induction"]  # defined on repeated random tokens
PROBE_PATTERNS: tuple[ProbePattern, ...] = get_args(ProbePattern)

N_RANDOM = 50  # random tokens of a probe text; each text holds them twice
N_TEXTS = 4
SEED = 0


def previous_token(weight_HTT: Tensor) -> Tensor:
    """Mean weight from every token but the first to the one before it, (H,)."""
    return weight_HTT.diagonal(-1, 1, 2).mean(-1)


def current_token(weight_HTT: Tensor) -> Tensor:
    """Mean weight from every token to itself, (H,)."""
    return weight_HTT.diagonal(0, 1, 2).mean(-1)


def first_token(weight_HTT: Tensor) -> Tensor:
    """Mean weight from every token but the first to the first, (H,)."""
    return weight_HTT[:, 1:, 0].mean(-1)


def same_token_before(weight_HTT: Tensor, ids: Sequence[int]) -> Tensor:
    """Mean weight from every token that occurred before to its earlier occurrences together, (H,); NaN if none did."""
    ids_T = torch.tensor(ids)
    earlier_TT = (ids_T[:, None] == ids_T).tril(-1)
    return (weight_HTT * earlier_TT).sum(-1)[:, earlier_TT.any(-1)].mean(-1)


def induction(weight_HTT: Tensor, n_random: int) -> Tensor:
    """Mean weight from every repeated token to the one that followed it the first time, (H,) (Olsson et al. 2022).

    The text is `n_random` tokens, twice.
    """
    return weight_HTT.diagonal(1 - n_random, 1, 2)[:, 1:].mean(-1)  # from query n_random + i to key i + 1


def text_scores(weight_HTT: Tensor, ids: Sequence[int]) -> Tensor:
    """The score of some heads for each of TEXT_PATTERNS, (H, P); NaN if the text has nothing to measure.

    >>> text_scores(torch.tensor([[[1.0, 0.0], [0.5, 0.5]]]), [7, 7]).tolist()
    [[0.5, 0.75, 0.5, 0.5]]
    """
    scores = (
        previous_token(weight_HTT),
        current_token(weight_HTT),
        first_token(weight_HTT),
        same_token_before(weight_HTT, ids),
    )
    return torch.stack(scores, dim=1)


def repeated_random_tokens(n_vocab: int, n_texts: int = N_TEXTS, n_random: int = N_RANDOM) -> Tensor:
    """Texts of random tokens, each repeated once, (B, 2·n_random). Token 0, which separates texts, is not drawn.

    Only attention to the first occurrence can predict the second: the test for induction heads (Olsson et al. 2022).
    """
    generator = torch.Generator().manual_seed(SEED)
    once_BT = torch.randint(1, n_vocab, (n_texts, n_random), generator=generator)
    return torch.cat((once_BT, once_BT), dim=1)


def probe_scores(model: GPT) -> Tensor:
    """The score of every head for each of PROBE_PATTERNS, (P, L, H), averaged over repeated random tokens.

    A context shorter than the probe shortens the probe.
    """
    n_random = min(N_RANDOM, model.config.n_context // 2)
    texts_BT = repeated_random_tokens(model.config.n_vocab, n_random=n_random)
    return torch.stack([trace_scores(read(model, ids_T.tolist()), n_random) for ids_T in texts_BT]).mean(0)


def trace_scores(trace: Trace, n_random: int | None = None) -> Tensor:
    """The same for one text, (P, L, H). Without `n_random`, the text does not repeat itself and induction is 0."""
    layers = []
    for layer in range(trace.model.config.n_layers):
        weight_HTT = trace.stage("weights", layer, range(trace.model.config.n_heads))
        previous_H, first_H = previous_token(weight_HTT), first_token(weight_HTT)
        induction_H = induction(weight_HTT, n_random) if n_random else torch.zeros_like(first_H)
        layers.append(torch.stack((previous_H, first_H, induction_H)))
    return torch.stack(layers, dim=1).cpu()


@torch.inference_mode()
def repetition_gain(model: GPT) -> float:
    """How many bits per token the surprisal drops when random tokens come for the second time.

    The first token of each half is left out, because nothing predicts it.
    """
    texts_BT = repeated_random_tokens(model.config.n_vocab).to(model.device)
    log_p_BTV = model(texts_BT[:, :-1]).float().log_softmax(-1)
    bits_BT = -log_p_BTV.gather(-1, texts_BT[:, 1:, None]).squeeze(-1) / torch.tensor(2.0).log()
    first, second = bits_BT[:, : N_RANDOM - 1], bits_BT[:, N_RANDOM:]
    return float(first.mean() - second.mean())
