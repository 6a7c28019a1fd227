"""What was measured, as it is written to JSON: every sample, so that every median can be checked."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter

CASES = {
    "first": "first reading",
    "appended": "one word appended",
    "changed": "last word changed",
    "middle": "edit in the middle",
}


@dataclass(frozen=True)
class Sample:
    """One text, read once by one contestant."""

    contestant: str
    n_tokens: int
    case: str  # as in CASES
    ms: float  # from the ask to the last byte of the answer
    n_bytes: int  # serialised, or on the wire; 0 where nothing is
    top_logit: float
    first_ms: float | None = None  # to the first frame, where an answer comes in several
    computed_ms: float | None = None  # of it in torch's thread, as the server says


@dataclass(frozen=True)
class Memory:
    """The most memory that a process has had up to the end of the texts of this length."""

    contestant: str
    n_tokens: int
    peak_mb: float


@dataclass(frozen=True)
class Batch:
    """Eight texts appended at once, and one of them alone, in turns."""

    contestant: str
    n_texts: int
    n_tokens: int
    one_ms: list[float] = field(default_factory=list)
    all_ms: list[float] = field(default_factory=list)  # until the last of them is answered


@dataclass(frozen=True)
class Load:
    """Typists at work for a while."""

    n_typists: int
    seconds: float
    n_keys: int
    n_unanswered: int  # of them: never, or not within the grace after the end
    problems: list[str]  # what the server refused, and why
    latency_ms: list[float]  # from the moment a key was due to its answer
    late_ms: list[float]  # how much later than due the load generator sent each key
    n_bytes: int  # on the wire, to all of them


@dataclass
class Results:
    """One run of the benchmark; it fills as it is measured."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    samples: list[Sample] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    eight_traces_mb: float | None = None  # the server's peak with eight traces of 1,024 tokens kept

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(self, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE))


def from_file(path: Path) -> Results:
    """What an earlier run wrote."""
    return TypeAdapter(Results).validate_json(path.read_bytes())
