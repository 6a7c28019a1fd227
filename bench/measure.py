"""The measurements: side by side, in one batch, memory. Those with several typists are in typists.py."""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from bench.contestants import LIVE, NETWORK, REFERENCE, Contestant, all_contestants
from bench.process import Worker, running
from bench.results import Batch, Memory, Sample
from bench.texts import Edits, Passages
from bench.wire import LiveClient

T = TypeVar("T")

TOLERANCE = 0.01  # logits; a larger difference means that the texts or the weights differ
N_BATCH = 8
BATCH_TOKENS = 32


class Disagreement(RuntimeError):
    """Two contestants computed different logits for the same text."""


def side_by_side(folder: Path, passages: Passages, rounds: dict[int, int]) -> Iterator[Sample | Memory]:
    """All contestants read the same texts in turns, round by round, so that drift of the machine affects all alike.

    Args:
        rounds: number of tokens -> number of rounds; one more round comes first and is not counted.
    """
    with all_contestants(folder) as contestants:
        for n_tokens, n_rounds in sorted(rounds.items()):
            participants = [contestant for contestant in contestants if n_tokens <= contestant.max_tokens]
            for contestant in contestants:
                if contestant not in participants:
                    contestant.stop()
            for i in range(n_rounds + 1):
                samples = list(one_round(rotated(participants, i), passages.edits(n_tokens)))
                check_agreement(samples)
                yield from samples if i else ()
            for contestant in participants:
                if contestant.peak_mb is not None:
                    yield Memory(contestant.name, n_tokens, contestant.peak_mb)


def one_round(contestants: Iterable[Contestant], edits: Edits) -> Iterator[Sample]:
    """Each contestant reads the text and its edits."""
    for contestant in contestants:
        yield from contestant.read(edits)


def check_agreement(samples: Sequence[Sample]) -> None:
    """Check that all contestants computed the same logit of the likeliest next token for the same text.

    Raises:
        Disagreement: if they did not.
    """
    first = [sample for sample in samples if sample.case == "first"]
    (reference,) = (sample for sample in first if sample.contestant == REFERENCE)
    for sample in first:
        if abs(sample.top_logit - reference.top_logit) > TOLERANCE:
            raise Disagreement(
                f"{sample.contestant} computes a logit of {sample.top_logit:.4f} where "
                f"{reference.contestant} computes {reference.top_logit:.4f}, for the same {reference.n_tokens} tokens"
            )


def batch_network(folder: Path, passages: Passages, rounds: int) -> Batch:
    """Eight texts get one more token each in one forward pass, compared with one of them alone."""
    batch = Batch(NETWORK, N_BATCH, BATCH_TOKENS)
    with Worker("bench.peers.lookback:trace", folder) as worker:
        worker.wait_until_ready()
        for i in range(rounds + 1):
            texts = [passages.edits(BATCH_TOKENS) for _ in range(N_BATCH)]
            times = []
            for chosen in (texts[:1], texts):
                worker.read([text.shorter.ids for text in chosen], 0)
                times.append(worker.read([text.appended.ids for text in chosen], BATCH_TOKENS - 1)["ms"])
            if i:
                batch.one_ms.append(times[0])
                batch.all_ms.append(times[1])
    return batch


def batch_live(url: str, passages: Passages, rounds: int) -> Batch:
    """Eight pages append a word at the same moment, compared with one page alone; until the last reply."""
    batch = Batch(LIVE, N_BATCH, BATCH_TOKENS)
    with ExitStack() as stack:
        pages = [stack.enter_context(LiveClient(url)) for _ in range(N_BATCH)]
        for i in range(rounds + 1):
            texts = [passages.edits(BATCH_TOKENS) for _ in pages]
            for page, text in zip(pages, texts, strict=True):
                page.request(text.shorter.text)
            one_ms = _request_at_once(pages[:1], [text.appended.text for text in texts[:1]])
            pages[0].request(texts[0].shorter.text)
            all_ms = _request_at_once(pages, [text.first.text for text in texts])
            if i:
                batch.one_ms.append(one_ms)
                batch.all_ms.append(all_ms)
    return batch


def eight_traces(passages: Passages, n_tokens: int = 1024) -> float | None:
    """The server's peak memory in MB after eight long texts, with a cache that is large enough for all of them."""
    with running(cache_mb=2_000) as server, LiveClient(server.url) as page:
        for _ in range(8):
            page.request(passages.edits(n_tokens).first.text)
        return server.peak_mb


def _request_at_once(pages: Sequence[LiveClient], texts: Sequence[str]) -> float:
    """Milliseconds until all pages have their replies, if all send their requests at the same moment."""
    start = threading.Barrier(len(pages) + 1)

    def request(page: LiveClient, text: str) -> None:
        start.wait()
        page.request(text)

    threads = [threading.Thread(target=request, args=pair) for pair in zip(pages, texts, strict=True)]
    for thread in threads:
        thread.start()
    start.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - started) * 1e3


def rotated(items: Sequence[T], by: int) -> Sequence[T]:
    """Contestants or readings in rotated order, so that none is always the first."""
    by %= len(items)
    return [*items[by:], *items[:by]]
