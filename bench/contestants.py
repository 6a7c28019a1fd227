"""Who is measured side by side: every contestant reads a text, and some go on from what they read before."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.process import Server, Worker
from bench.results import Sample
from bench.texts import Edits, common
from bench.wire import Http, Live

BASE = "transformers, attentions"  # every ratio is to this
ALONE = "Lookback, network alone"
LIVE = "Lookback, live"  # what the page does, end to end


class Contestant(Protocol):
    """Somebody who reads."""

    name: str
    most_tokens: int  # longer texts would take it too long, or too much memory

    def read(self, edits: Edits) -> Iterator[Sample]:
        """One round."""
        ...

    def stop(self) -> None:
        """All that it could read has been read; its memory is wanted by others."""
        ...

    @property
    def peak_mb(self) -> float | None: ...


@dataclass
class Peer:
    """Reads every text from its beginning, so that an edit costs what a first reading of as many tokens costs."""

    name: str
    most_tokens: int
    worker: Worker

    def read(self, edits: Edits) -> Iterator[Sample]:
        yield Sample(self.name, edits.n_tokens, "first", **self.worker.ask([edits.first.ids], 0))

    def stop(self) -> None:
        self.worker.stop()

    @property
    def peak_mb(self) -> float | None:
        return self.worker.peak_mb


class Alone(Peer):
    """This app's network and trace in a process of their own; it goes on from what it read before."""

    def read(self, edits: Edits) -> Iterator[Sample]:
        before: tuple[int, ...] = ()
        for case in ("first", "appended", "changed", "middle"):
            ids = getattr(edits, case).ids
            yield Sample(self.name, edits.n_tokens, case, **self.worker.ask([ids], common(before, ids)))
            before = ids


@dataclass
class Page:
    """This app as the page meets it: a real server, and everything the page shows serialised."""

    name: str
    most_tokens: int
    server: Server
    channel: Live | Http

    def read(self, edits: Edits) -> Iterator[Sample]:
        for case in ("first", "shorter", "appended", "changed", "middle"):
            heard = self.channel.ask(getattr(edits, case).text)
            assert heard.header["n_tokens"] == len(getattr(edits, case).ids), "the server cuts the text otherwise"
            if case != "shorter":
                yield Sample(
                    self.name,
                    edits.n_tokens,
                    case,
                    ms=heard.ms,
                    n_bytes=heard.n_bytes,
                    top_logit=heard.top_logit,
                    first_ms=heard.first_ms,
                    computed_ms=heard.computed_ms,
                )

    def stop(self) -> None:
        pass  # its server reads texts of every length

    @property
    def peak_mb(self) -> float | None:
        return self.server.peak_mb


@contextmanager
def everybody(folder: Path) -> Iterator[list[Contestant]]:
    """All contestants, loaded and waiting; some 9 GB. What each is spared is said here.

    JSON and HTML of all weights grow with the square of the text: 60 and 120 MB at 128 tokens, 1 and 2 GB at 512.
    TransformerLens wants more than 15 GB at 2,048 tokens.
    """
    with ExitStack() as stack:
        peers = [
            ("transformers, nothing captured", 2048, "plain:floor"),
            (BASE, 2048, "plain:attentions"),
            ("transformers, attentions as JSON", 128, "plain:json"),
            ("TransformerLens, run_with_cache", 1024, "lens:run_with_cache"),
            ("BertViz, head_view", 128, "html:head_view"),
        ]
        workers = [stack.enter_context(Worker(f"bench.peers.{where}", folder)) for *_, where in peers]
        alone = stack.enter_context(Worker("bench.peers.lookback:trace", folder))
        servers = stack.enter_context(Server()), stack.enter_context(Server())  # neither keeps what the other read
        for worker in (*workers, alone):
            worker.wait_until_ready()
        for server in servers:
            server.wait_until_ready()
        found: list[Contestant] = [
            Peer(name, most, worker) for (name, most, _), worker in zip(peers, workers, strict=True)
        ]
        found.append(Alone(ALONE, 2048, alone))
        found.append(Page(LIVE, 2048, servers[0], stack.enter_context(Live(servers[0].url))))
        found.append(Page("Lookback, HTTP", 2048, servers[1], stack.enter_context(Http(servers[1].url))))
        yield found
