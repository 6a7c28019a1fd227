"""A process that reads texts with one program on request: python -m bench.worker bench.peers.plain:floor FOLDER.

One line of JSON arrives per reading, and one is sent back: {"texts", "n_shared"} -> {"ms", "n_bytes", "top_logit"}.
"""

import importlib
import os
import sys
import time
from pathlib import Path

import orjson
import torch

from bench.peers import Work
from bench.results import Reading


def main(program: str, folder: Path) -> None:
    """Load the model, send an empty object, and serve requests until the input ends."""
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print must not mix with the replies
    module, _, name = program.partition(":")
    prepare = getattr(importlib.import_module(module), name)
    with torch.inference_mode():
        work: Work = prepare(folder)
        replies.write(b"{}\n")
        for line in sys.stdin.buffer:
            replies.write(orjson.dumps(measure(work, **orjson.loads(line))) + b"\n")


def measure(work: Work, texts: list[list[int]], n_shared: int) -> Reading:
    """Read the texts once and time it."""
    started = time.perf_counter()
    output = work(texts, n_shared)
    elapsed_s = time.perf_counter() - started
    return {"ms": elapsed_s * 1e3, "n_bytes": output.n_bytes, "top_logit": output.top_logit}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
