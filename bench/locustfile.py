"""Typists for locust, each with a live channel of its own. `bench.typists` starts it; locust draws nothing here.

A typist presses keys when they are due, whatever the server does (an open loop), and a key's latency counts from
when it was due: where the load generator is late, the key waits longer. How late it was is written down too.
"""

import itertools
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import gevent
import orjson
from locust import User, events, task

from app.live import frame
from bench.keystrokes import Waiting, typing
from bench.wire import ask, open_channel

NUMBERS = itertools.count()
SAID: dict[str, Any] = {"n_keys": 0, "n_unanswered": 0, "problems": [], "latency_ms": [], "late_ms": [], "n_bytes": 0}


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator, unused-ignore]
def add_options(parser: ArgumentParser) -> None:
    """Options of ours, beside locust's own."""
    parser.add_argument("--typing-s", type=float, default=20.0, help="for how long keys are pressed")
    parser.add_argument("--said", type=Path, default=Path("typists.json"), help="where every latency is written")


@events.quitting.add_listener  # type: ignore[untyped-decorator, unused-ignore]
def write(environment: Any, **_: Any) -> None:
    """Write every sample; locust's own percentiles are rounded."""
    environment.parsed_options.said.write_bytes(orjson.dumps(SAID))


class Typist(User):  # type: ignore[misc, unused-ignore]
    """Types without end, and watches what comes back."""

    def on_start(self) -> None:
        self._waiting = Waiting()
        self._connection, self._socket = open_channel(self.host)
        gevent.spawn(self._watch)

    def on_stop(self) -> None:
        SAID["n_unanswered"] += len(self._waiting)
        SAID["n_bytes"] += self._socket.n_received
        self._connection.close()

    @task  # type: ignore[untyped-decorator, unused-ignore]
    def type(self) -> None:
        """Press keys until it is time to stop; what is still unanswered gets the rest of the run as its grace."""
        started = time.perf_counter()
        for seq, key in enumerate(typing(next(NUMBERS)), start=1):
            if key.at_s > self.environment.parsed_options.typing_s:
                break
            due = started + key.at_s
            gevent.sleep(max(0.0, due - time.perf_counter()))
            SAID["n_keys"] += 1
            SAID["late_ms"].append((time.perf_counter() - due) * 1e3)
            self._waiting.press(seq, due)
            self._connection.send(ask(key.text, seq))
        gevent.sleep(float("inf"))

    def _watch(self) -> None:
        for message in self._connection:
            assert isinstance(message, bytes)
            header, _ = frame.decode(message)
            if header.get("problem"):
                SAID["problems"].append(header["problem"]["detail"])
            elif header.get("done"):
                for waited_s in self._waiting.answer(header["seq"], time.perf_counter()):
                    self._note(waited_s * 1e3, len(message))

    def _note(self, waited_ms: float, n_bytes: int) -> None:
        SAID["latency_ms"].append(waited_ms)
        self.environment.events.request.fire(
            request_type="WS", name="key", response_time=waited_ms, response_length=n_bytes, exception=None, context={}
        )
