"""A process that does one contestant's work when it is asked to: python -m bench.worker bench.peers.plain:floor FOLDER.

A line of JSON comes in for every reading, and one goes out: {"texts", "same"} -> {"ms", "n_bytes", "top_logit"}.
"""

import importlib
import os
import sys
import time
from pathlib import Path

import orjson
import torch

from bench.peers import Work


def main(where: str, folder: Path) -> None:
    """Load, say so, and work until nothing more comes in."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print is no answer
    module, _, name = where.partition(":")
    prepare = getattr(importlib.import_module(module), name)
    with torch.inference_mode():
        work: Work = prepare(folder)
        answers.write(b"{}\n")
        for line in sys.stdin.buffer:
            answers.write(orjson.dumps(answer(work, **orjson.loads(line))) + b"\n")


def answer(work: Work, texts: list[list[int]], same: int) -> dict[str, float]:
    """Work once, and say how long it took."""
    started = time.perf_counter()
    done = work(texts, same)
    elapsed_s = time.perf_counter() - started
    return {"ms": elapsed_s * 1e3, "n_bytes": done.n_bytes, "top_logit": done.top_logit}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
