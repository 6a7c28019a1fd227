"""A typist beside experiments: how much longer keys wait while another client runs one experiment after another."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Self

import httpx
import orjson

from bench.results import Beside
from bench.texts import Passages
from bench.typists import run_typists
from bench.wire import TIMEOUT_S, RequestRefused

N_TOKENS = 64  # of every text of an experiment; the ablation at every token takes no more

# Name -> the experiment's address and its controls; those that take longest.
EXPERIMENTS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "ablation at every token": ("ablation", {"where": "at every token"}),
    "why-heads": ("why-heads", {}),
    "causal-mask": ("causal-mask", {}),
    "parallel": ("parallel", {}),
    "complexity, timed": ("complexity", {"timed": True}),
    "batches, timed": ("batches", {"timed": True}),
    "multi-head": ("multi-head", {}),
    "dropout": ("dropout", {}),
}


@dataclass
class Experimenter:
    """A client that runs an experiment without pause, each time on another text, while the context lasts.

    Panels arrive as they are computed, as on the page. At the end of the context the run in progress is cancelled.

    Raises:
        RequestRefused: at the end, if the server refused a run.
    """

    url: str
    name: str  # of EXPERIMENTS
    passages: Passages
    n_runs: int = 0  # begun
    problem: str = ""
    _stopped: Event = field(default_factory=Event)

    def __enter__(self) -> Self:
        self._thread = Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        if self.problem:
            raise RequestRefused(f"{self.name}: {self.problem}")

    def _run(self) -> None:
        slug, controls = EXPERIMENTS[self.name]
        headers = {"Accept": "application/x-ndjson"}
        with httpx.Client(base_url=self.url, timeout=TIMEOUT_S, trust_env=False, headers=headers) as client:
            while not (self._stopped.is_set() or self.problem):
                body = {"text": self.passages.edits(N_TOKENS).first.text, **controls}
                self.n_runs += 1
                with client.stream("POST", f"/api/v1/experiments/{slug}", json=body) as response:
                    self.problem = problem_of(self._lines(response), response.status_code)

    def _lines(self, response: httpx.Response) -> Iterator[str]:
        """The lines of a reply until the end of the context."""
        for line in response.iter_lines():
            if self._stopped.is_set():
                return
            yield line


def problem_of(lines: Iterator[str], status: int) -> str:
    """What a server says of a run that failed, in its status or in a line of the reply; empty if it did not fail.

    >>> problem_of(iter(['{"model": "a"}', '{"problem": {"detail": "too long"}}']), 200)
    'too long'
    """
    for line in lines:
        if status >= 400:
            return line
        if problem := orjson.loads(line).get("problem"):
            return str(problem["detail"])
    return f"status {status}" if status >= 400 else ""


def beside(url: str, name: str, passages: Passages, seconds: float, *, typist: int) -> Beside:
    """One typist alone, then another one, who types other texts, beside an experiment.

    Args:
        name: of EXPERIMENTS.
        typist: the number of the first of the two.
    """
    alone = run_typists(url, 1, seconds, first=typist)
    with Experimenter(url, name, passages) as experimenter:
        load = run_typists(url, 1, seconds, first=typist + 1)
    return Beside(name, experimenter.n_runs, alone, load)
