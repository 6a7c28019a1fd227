"""Typists for locust, each with a live channel of its own; `bench.typists` starts it.

A typist presses each key when it is due, however slow the server is (an open loop), and a key's latency counts from
when it was due: if the load generator is late, its delay is part of the latency. The delays are recorded as well.
"""

import itertools
import time
from argparse import ArgumentParser
from dataclasses import dataclass, field
from pathlib import Path

import gevent
import orjson
from locust import User, events, task
from locust.env import Environment

from bench.keystrokes import PendingKeys, type_scripts
from bench.wire import decode_header, encode_request, open_channel

TYPIST_NUMBERS = itertools.count()


@dataclass
class Log:
    """What happened to all typists: the fields of `bench.results.Load` that are measured here."""

    n_keys: int = 0
    n_unanswered: int = 0
    problems: list[str] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)
    n_bytes: int = 0


LOG = Log()


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator, unused-ignore]
def add_options(parser: ArgumentParser) -> None:
    """Add our options to locust's."""
    parser.add_argument("--typing-s", type=float, default=20.0, help="how many seconds keys are pressed")
    parser.add_argument(
        "--first-typist", type=int, default=0, help="the number of the first typist; a number has its own texts"
    )
    parser.add_argument("--out", type=Path, default=Path("typists.json"), help="the file for all latencies")


@events.quitting.add_listener  # type: ignore[untyped-decorator, unused-ignore]
def write(environment: Environment, **_: object) -> None:
    """Write every sample, because locust rounds its percentiles."""
    environment.parsed_options.out.write_bytes(orjson.dumps(LOG))


class Typist(User):  # type: ignore[misc, unused-ignore]
    """Types until the time is over, and receives the replies at the same time."""

    def on_start(self) -> None:
        """Open the live channel."""
        self._pending = PendingKeys()
        self._connection, self._socket = open_channel(self.host)
        gevent.spawn(self._receive)

    def on_stop(self) -> None:
        """Record what is left without a reply, and close the channel."""
        LOG.n_unanswered += len(self._pending)
        LOG.n_bytes += self._socket.n_received
        self._connection.close()

    @task  # type: ignore[untyped-decorator, unused-ignore]
    def type(self) -> None:
        """Press keys until the time is over; the rest of the run waits for the last replies."""
        started = time.perf_counter()
        options = self.environment.parsed_options
        for seq, key in enumerate(type_scripts(options.first_typist + next(TYPIST_NUMBERS)), start=1):
            if key.at_s > options.typing_s:
                break
            due = started + key.at_s
            gevent.sleep(max(0.0, due - time.perf_counter()))
            LOG.n_keys += 1
            LOG.late_ms.append((time.perf_counter() - due) * 1e3)
            self._pending.press(seq, due)
            self._connection.send(encode_request(key.text, seq))
        gevent.sleep(float("inf"))

    def _receive(self) -> None:
        for message in self._connection:
            header = decode_header(message)
            if problem := header.get("problem"):
                LOG.problems.append(problem["detail"])
            elif header.get("done"):
                for waited_s in self._pending.resolve(header["seq"], time.perf_counter()):
                    self._record(waited_s * 1e3, len(message))

    def _record(self, waited_ms: float, n_bytes: int) -> None:
        LOG.latency_ms.append(waited_ms)
        self.environment.events.request.fire(
            request_type="WS", name="key", response_time=waited_ms, response_length=n_bytes, exception=None, context={}
        )
