"""The four measurements: side by side, in one batch, memory, typists."""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.contestants import ALONE, BASE, LIVE, Contestant, everybody
from bench.process import Worker, running
from bench.results import Batch, Memory, Sample
from bench.texts import Edits, Passages
from bench.wire import Live

TOLERANCE = 0.01  # logits; contestants that differ by more do not read the same text with the same weights
N_BATCH = 8
BATCH_TOKENS = 32


class Disagreement(RuntimeError):
    """Two contestants found different logits for the same text."""


def side_by_side(folder: Path, passages: Passages, rounds: dict[int, int]) -> Iterator[Sample | Memory]:
    """Everybody reads the same texts, one after another, round by round; the machine's drift hits all alike.

    Args:
        rounds: how many, for each number of tokens; one more comes first and is not counted.
    """
    with everybody(folder) as contestants:
        for n_tokens, n_rounds in sorted(rounds.items()):
            taking_part = [one for one in contestants if n_tokens <= one.most_tokens]
            for one in contestants:
                if one not in taking_part:
                    one.stop()
            for i in range(n_rounds + 1):
                samples = list(one_round(_rotated(taking_part, i), passages.edits(n_tokens)))
                check(samples)
                yield from samples if i else ()
            for one in taking_part:
                if one.peak_mb is not None:
                    yield Memory(one.name, n_tokens, one.peak_mb)


def one_round(contestants: Iterable[Contestant], edits: Edits) -> Iterator[Sample]:
    """Each reads the text and its edits."""
    for one in contestants:
        yield from one.read(edits)


def check(samples: Sequence[Sample]) -> None:
    """All that read the same text agree on the logit of the likeliest next token.

    Raises:
        Disagreement: when they do not.
    """
    first = [sample for sample in samples if sample.case == "first"]
    (base,) = (sample for sample in first if sample.contestant == BASE)
    for other in first:
        if abs(other.top_logit - base.top_logit) > TOLERANCE:
            raise Disagreement(
                f"{other.contestant} finds a logit of {other.top_logit:.4f} where "
                f"{base.contestant} finds {base.top_logit:.4f}, for the same {base.n_tokens} tokens"
            )


def batch_alone(folder: Path, passages: Passages, rounds: int) -> Batch:
    """Eight texts get a token each in one pass of the network, beside one of them."""
    found = Batch(ALONE, N_BATCH, BATCH_TOKENS)
    with Worker("bench.peers.lookback:trace", folder) as worker:
        worker.wait_until_ready()
        for i in range(rounds + 1):
            texts = [passages.edits(BATCH_TOKENS) for _ in range(N_BATCH)]
            times = []
            for chosen in (texts[:1], texts):
                worker.ask([one.shorter.ids for one in chosen], 0)
                times.append(worker.ask([one.appended.ids for one in chosen], BATCH_TOKENS - 1)["ms"])
            if i:
                found.one_ms.append(times[0])
                found.all_ms.append(times[1])
    return found


def batch_live(url: str, passages: Passages, rounds: int) -> Batch:
    """Eight pages append a word at the same moment, beside one page; until the last answer is there."""
    found = Batch(LIVE, N_BATCH, BATCH_TOKENS)
    with ExitStack() as stack:
        pages = [stack.enter_context(Live(url)) for _ in range(N_BATCH)]
        for i in range(rounds + 1):
            texts = [passages.edits(BATCH_TOKENS) for _ in pages]
            for page, text in zip(pages, texts, strict=True):
                page.ask(text.shorter.text)
            one_ms = _at_once(pages[:1], [text.appended.text for text in texts[:1]])
            pages[0].ask(texts[0].shorter.text)
            all_ms = _at_once(pages, [text.first.text for text in texts])
            if i:
                found.one_ms.append(one_ms)
                found.all_ms.append(all_ms)
    return found


def eight_traces(passages: Passages, n_tokens: int = 1024) -> float | None:
    """The server's peak memory in MB when it has read eight long texts and was told to keep them all."""
    with running(cache_mb=2_000) as server, Live(server.url) as page:
        for _ in range(8):
            page.ask(passages.edits(n_tokens).first.text)
        return server.peak_mb


def _at_once(pages: Sequence[Live], texts: Sequence[str]) -> float:
    """Milliseconds until all pages that ask at the same moment have their answers."""
    start = threading.Barrier(len(pages) + 1)

    def go(page: Live, text: str) -> None:
        start.wait()
        page.ask(text)

    threads = [threading.Thread(target=go, args=pair) for pair in zip(pages, texts, strict=True)]
    for thread in threads:
        thread.start()
    start.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - started) * 1e3


def _rotated(contestants: Sequence[Contestant], by: int) -> Sequence[Contestant]:
    """Nobody always comes after the same one."""
    by %= len(contestants)
    return [*contestants[by:], *contestants[:by]]
