"""The contestants: each reads a text, and some reuse what they computed for the previous one."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.process import Server, Worker
from bench.results import Sample
from bench.texts import Edits
from bench.wire import HttpClient, LiveClient
from model.cache import shared_prefix_length

REFERENCE = "transformers, attentions"  # every ratio is relative to this
NETWORK = "Lookback, network alone"
LIVE = "Lookback, live"  # what the page does, end to end


class Contestant(Protocol):
    """A program, or a way to use it, that is measured."""

    name: str
    max_tokens: int  # longer texts would need too much time or memory

    def read(self, edits: Edits) -> Iterator[Sample]:
        """Read the texts of one round."""
        ...

    def stop(self) -> None:
        """Free the memory after the last text that is short enough."""
        ...

    @property
    def peak_mb(self) -> float | None:
        """Peak memory in MB; None if the system does not record it."""
        ...


@dataclass
class Peer:
    """Reads every text from its beginning, so that every edit costs as much as the first reading."""

    name: str
    max_tokens: int
    worker: Worker

    def read(self, edits: Edits) -> Iterator[Sample]:
        """Read the first text of the round."""
        yield Sample(self.name, edits.n_tokens, "first", **self.worker.read([edits.first.ids], 0))

    def stop(self) -> None:
        """End the process."""
        self.worker.stop()

    @property
    def peak_mb(self) -> float | None:
        """Peak memory of the process in MB."""
        return self.worker.peak_mb


class NetworkAlone(Peer):
    """This app's network and trace in a process of their own; computes only what differs from the previous text."""

    def read(self, edits: Edits) -> Iterator[Sample]:
        """Read the first text of the round and every edit."""
        previous: tuple[int, ...] = ()
        for case in ("first", "appended", "changed", "middle"):
            ids = getattr(edits, case).ids
            reading = self.worker.read([ids], shared_prefix_length(previous, ids))
            yield Sample(self.name, edits.n_tokens, case, **reading)
            previous = ids


@dataclass
class Page:
    """This app as a page uses it: a real server, and everything that the page shows, serialised."""

    name: str
    max_tokens: int
    server: Server
    client: LiveClient | HttpClient

    def read(self, edits: Edits) -> Iterator[Sample]:
        """Request the first text of the round and every edit."""
        for case in ("first", "shorter", "appended", "changed", "middle"):
            reply = self.client.request(getattr(edits, case).text)
            assert reply.header["n_tokens"] == len(getattr(edits, case).ids), "the server's tokens differ"
            if case != "shorter":
                yield Sample(
                    self.name,
                    edits.n_tokens,
                    case,
                    ms=reply.ms,
                    n_bytes=reply.n_bytes,
                    top_logit=reply.top_logit,
                    first_ms=reply.first_ms,
                    computed_ms=reply.computed_ms,
                )

    def stop(self) -> None:
        """Do nothing: the server reads texts of every length."""

    @property
    def peak_mb(self) -> float | None:
        """Peak memory of the server in MB."""
        return self.server.peak_mb


@contextmanager
def all_contestants(folder: Path) -> Iterator[list[Contestant]]:
    """All contestants, loaded and ready; they need about 9 GB.

    JSON and HTML of all weights grow with the square of the text: 60 and 120 MB at 128 tokens, 1 and 2 GB at 512.
    TransformerLens needs more than 15 GB at 2,048 tokens.
    """
    with ExitStack() as stack:
        peers = [
            ("transformers, nothing captured", 2048, "plain:floor"),
            (REFERENCE, 2048, "plain:attentions"),
            ("transformers, attentions as JSON", 128, "plain:json"),
            ("TransformerLens, run_with_cache", 1024, "lens:run_with_cache"),
            ("BertViz, head_view", 128, "html:head_view"),
        ]
        workers = [stack.enter_context(Worker(f"bench.peers.{program}", folder)) for *_, program in peers]
        network = stack.enter_context(Worker("bench.peers.lookback:trace", folder))
        # one server per client, so that neither finds the other's texts in its cache
        servers = stack.enter_context(Server()), stack.enter_context(Server())
        for worker in (*workers, network):
            worker.wait_until_ready()
        for server in servers:
            server.wait_until_ready()
        yield [
            *(Peer(name, max_tokens, worker) for (name, max_tokens, _), worker in zip(peers, workers, strict=True)),
            NetworkAlone(NETWORK, 2048, network),
            Page(LIVE, 2048, servers[0], stack.enter_context(LiveClient(servers[0].url))),
            Page("Lookback, HTTP", 2048, servers[1], stack.enter_context(HttpClient(servers[1].url))),
        ]
