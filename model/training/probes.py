"""What a head does, as numbers: how much it looks at the token before, at the first, at what came after this before."""

# shapes: B texts, T tokens, P patterns, L layers, H heads

from typing import Literal, get_args

import torch
from torch import Tensor

from model.gpt import GPT
from model.trace import Trace, read

Pattern = Literal["previous", "first", "induction"]
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)

N_RANDOM = 50  # tokens, said twice
N_TEXTS = 4
SEED = 0


def random_twice(n_vocab: int, n_texts: int = N_TEXTS, n_random: int = N_RANDOM) -> Tensor:
    """Texts of random tokens, each said twice, (B, 2·n_random). Token 0, which stands between texts, is not drawn.

    Nothing in them can be known but by looking back: the test of induction heads (Olsson et al. 2022).
    """
    generator = torch.Generator().manual_seed(SEED)
    once_BT = torch.randint(1, n_vocab, (n_texts, n_random), generator=generator)
    return torch.cat((once_BT, once_BT), dim=1)


def pattern_scores(model: GPT) -> Tensor:
    """The mean weight that each head gives to each of PATTERNS, (P, L, H), over random tokens said twice.

    `previous`: from every token but the first to the one before it. `first`: from every token but the first to the
    first. `induction`: from every token of the second time to the one that followed it the first time. Where a context
    is shorter than the probe, the probe is shortened.
    """
    n_random = min(N_RANDOM, model.config.n_context // 2)
    texts_BT = random_twice(model.config.n_vocab, n_random=n_random)
    return torch.stack([scores_of(read(model, ids_T.tolist()), n_random) for ids_T in texts_BT]).mean(0)


def scores_of(trace: Trace, n_random: int | None = None) -> Tensor:
    """The same for one text that was read, (P, L, H); without `n_random`, induction is 0."""
    found = []
    for layer in range(trace.model.config.n_layers):
        weight_HTT = trace.stage("weights", layer, range(trace.model.config.n_heads))
        previous_H = weight_HTT.diagonal(-1, 1, 2).mean(-1)
        first_H = weight_HTT[:, 1:, 0].mean(-1)
        induction_H = torch.zeros_like(first_H)
        if n_random:  # query n+i, and the key after its first time: i+1
            induction_H = weight_HTT.diagonal(1 - n_random, 1, 2)[:, 1:].mean(-1)
        found.append(torch.stack((previous_H, first_H, induction_H)))
    return torch.stack(found, dim=1).cpu()


@torch.inference_mode()
def repetition_gain(model: GPT) -> float:
    """By how many bits a token a model is surprised less when random tokens are said for the second time.

    The first of either time is left out: nothing tells it.
    """
    texts_BT = random_twice(model.config.n_vocab).to(model.device)
    share_BTV = model(texts_BT[:, :-1]).float().log_softmax(-1)
    bits_BT = -share_BTV.gather(-1, texts_BT[:, 1:, None]).squeeze(-1) / torch.tensor(2.0).log()
    first, second = bits_BT[:, : N_RANDOM - 1], bits_BT[:, N_RANDOM:]
    return float(first.mean() - second.mean())
