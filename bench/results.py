"""The results of a run, written as JSON with every sample, so that every median can be checked."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import orjson
from pydantic import TypeAdapter

CASES = {
    "first": "first reading",
    "appended": "one word appended",
    "changed": "last word changed",
    "middle": "edit in the middle",
}


class Reading(TypedDict):
    """What a worker reports of one reading: the fields of `Sample` that it measures."""

    ms: float
    n_bytes: int
    top_logit: float


@dataclass(frozen=True)
class Sample:
    """One text, read once by one contestant."""

    contestant: str
    n_tokens: int
    case: str  # a key of CASES
    ms: float  # from the request to the last byte of the reply
    n_bytes: int  # serialised, or on the wire; 0 if neither
    top_logit: float
    first_ms: float | None = None  # to the first frame, if the reply has several
    computed_ms: float | None = None  # part of `ms` spent in torch's thread, as the server reports it


@dataclass(frozen=True)
class Memory:
    """The peak memory of a process after the texts of this length and all shorter ones."""

    contestant: str
    n_tokens: int
    peak_mb: float


@dataclass(frozen=True)
class Batch:
    """Several texts appended to at once, and one of them alone, in turns."""

    contestant: str
    n_texts: int
    n_tokens: int
    one_ms: list[float] = field(default_factory=list)
    all_ms: list[float] = field(default_factory=list)  # until the last reply


@dataclass(frozen=True)
class Load:
    """Several typists at work for a while."""

    n_typists: int
    seconds: float
    n_keys: int
    n_unanswered: int  # keys without a reply before the run's grace period ended
    problems: list[str]  # what the server refused, and why
    latency_ms: list[float]  # from the moment a key was due to its reply
    late_ms: list[float]  # how late the load generator sent each key
    n_bytes: int  # on the wire, to all typists


@dataclass(frozen=True)
class Pair:
    """Two pieces of work in turns, in one process."""

    name: str
    reference: str
    n_tokens: int
    ms: list[float] = field(default_factory=list)
    reference_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Sweep:
    """Every head of a model set to 0, one at a time, at all tokens of a text; once."""

    n_heads: int
    n_tokens: int
    steps_ms: list[float]  # nothing else runs in torch's thread during a step


@dataclass(frozen=True)
class Edited:
    """What changes of a model cost, without a server."""

    pairs: list[Pair]
    sweep: Sweep


@dataclass(frozen=True)
class Beside:
    """One typist alone, then beside a client that runs an experiment without pause."""

    experiment: str
    n_runs: int  # begun
    alone: Load
    beside: Load


@dataclass
class Results:
    """One run of the benchmark; it is filled while the measurements are made."""

    machine: dict[str, object]
    settings: dict[str, object]
    samples: list[Sample] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    edited: Edited | None = None
    besides: list[Beside] = field(default_factory=list)
    eight_traces_mb: float | None = None  # the server's peak memory with eight traces of 1,024 tokens in its cache

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(self, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE))


def from_file(path: Path) -> Results:
    """The results that an earlier run wrote."""
    return TypeAdapter(Results).validate_json(path.read_bytes())
