"""What changes of the model cost: pairs of work in turns in one process, and one long sweep.

The traces and the cache are those of the app, but no server is between: the ratios are about the network alone.
`run_edited` starts the process: python -m bench.edited FOLDER ROUNDS OUT.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import orjson
import torch
from pydantic import TypeAdapter

from app.engine import NO_SITES
from app.experiments.base import RESIDUAL, PanelProgress, experiments
from app.models import LoadedModel
from app.tools.ablation import AblationWork
from bench.measure import rotated
from bench.process import environment
from bench.results import Edited, Pair, Sweep
from bench.texts import PASSAGE, Passages, TokenizedText
from model.cache import PrefixCache
from model.edits import NO_EDITS, Cut, Edit, Edits
from model.gpt import GPT
from model.linear import choose_kernels
from model.reading import compute_last_logits, read, read_batch
from model.sites import ObservedSite
from model.trace import Trace
from model.weights.folder import load

N_TOKENS = 128
N_TAIL = 8  # tokens that are read under edits
N_WHOLE_TOKENS = 32  # of the text of the sweep
EDITED_LAYER, EDITED_HEAD = 15, 3
CACHE_BYTES = 1_000_000_000

ABLATION = "each head set to 0 at the last token"
CUT, CUT_UPPER = "one weight cut", "one weight cut, residual stream cached"
HEAD, HEAD_UPPER = "one head set to 0", "one head set to 0, residual stream cached"
ONE_PASS, TAIL = "one pass", f"the same {N_TAIL} tokens without edits"

Ids = tuple[int, ...]


def run_edited(folder: Path, n_rounds: int) -> Edited:
    """Measure in a process of its own, with the settings of torch's threads that `lookback serve` has.

    Raises:
        RuntimeError: if the process fails.
    """
    with tempfile.TemporaryDirectory() as out_folder:
        out = Path(out_folder) / "edited.json"
        command = [sys.executable, "-m", "bench.edited", str(folder), str(n_rounds), str(out)]
        spin = {"GOMP_SPINCOUNT": "2000"}  # torch reads it when it is imported, so it cannot be set in the process
        process = subprocess.run(command, env=environment() | spin, stderr=subprocess.PIPE, text=True, check=False)
        if process.returncode:
            raise RuntimeError(f"the measurement of edits failed:\n{process.stderr[-2_000:]}")
        return TypeAdapter(Edited).validate_json(out.read_bytes())


def main(folder: Path, n_rounds: int, out: Path) -> None:
    """Load the model, measure, and write the results as JSON."""
    network, tokenizer = load(folder, device=torch.device("cpu"), dtype=torch.float32)
    choose_kernels(network)
    model = LoadedModel(folder.name, network, tokenizer, network.config.n_context)
    passages = Passages(tokenizer, PASSAGE.read_text())
    out.write_bytes(orjson.dumps(Edited(pairs(model, passages, n_rounds), sweep(model, passages))))


def pairs(model: LoadedModel, passages: Passages, n_rounds: int) -> list[Pair]:
    """All pairs, round by round, each round with a text of its own; one more round comes first and is not counted."""
    ablation = Pair(ABLATION, ONE_PASS, N_TOKENS)
    edited = {name: Pair(name, TAIL, N_TOKENS) for name in (CUT, CUT_UPPER, HEAD, HEAD_UPPER)}
    for i in range(n_rounds + 1):
        text = passages.edits(N_TOKENS).first
        pass_ms, ablation_ms = _time_ablation(model, text)
        tails_ms = _time_tails(model, text.ids, i)
        if i:
            ablation.reference_ms.append(pass_ms)
            ablation.ms.append(ablation_ms)
            for name, pair in edited.items():
                pair.reference_ms.append(tails_ms[TAIL])
                pair.ms.append(tails_ms[name])
    return [ablation, *edited.values()]


def sweep(model: LoadedModel, passages: Passages) -> Sweep:
    """Every head at every token of a text, step by step as the server computes it."""
    work = ablation_of(model, passages.edits(N_WHOLE_TOKENS).first.text, where="at every token")
    steps_ms = [ms for ms, _ in timed_steps(work.sweep())]
    return Sweep(len(work.effects), len(work.tokens), steps_ms)


def ablation_of(model: LoadedModel, text: str, **controls: object) -> AblationWork:
    """The tool that sets each head to 0, on a text that is read."""
    experiment, tokens = experiments()["ablation"], model.tokens(text)
    work = experiment.work(model, tokens, experiment.controls.model_validate({"text": text, **controls}))
    assert isinstance(work, AblationWork)
    work.trace = read(model.network, tokens.ids, sites=RESIDUAL)
    compute_last_logits([work.trace])
    return work


def timed_steps(steps: Iterator[PanelProgress]) -> Iterator[tuple[float, PanelProgress | None]]:
    """Each step of a generator with its milliseconds; the last one, None, is the rest after the last step."""
    while True:
        started = time.perf_counter()
        step = next(steps, None)
        yield (time.perf_counter() - started) * 1e3, step
        if step is None:
            return


def _time_ablation(model: LoadedModel, text: TokenizedText) -> tuple[float, float]:
    """Milliseconds of one pass with the logits after the last token, and of all heads after it."""
    pass_ms = _milliseconds(lambda: compute_last_logits([read(model.network, text.ids)]))
    work = ablation_of(model, text.text)
    return pass_ms, _milliseconds(lambda: list(work.sweep()))


def _time_tails(model: LoadedModel, ids: Ids, i: int) -> Mapping[str, float]:
    """Milliseconds of the last N_TAIL tokens of a text under each edit, and without edits.

    With edits, the unedited trace of the text is cached, with or without the residual stream. Without edits, that of
    a text with another end is. Each round `i` begins with another reading, because the first one finds cold caches.
    """
    first = len(ids) - N_TAIL
    cut = Edits((Cut(EDITED_LAYER, EDITED_HEAD, query=first, key=0),))
    off = Edits((Edit("context", EDITED_LAYER, heads=(EDITED_HEAD,), first=first, scale=0.0),))
    plain, residual = (cache_of(model.network, ids, sites) for sites in (NO_SITES, RESIDUAL))
    other_end = cache_of(model.network, with_other_end(ids, N_TAIL), NO_SITES)
    readings = {
        TAIL: (other_end, NO_EDITS),
        CUT: (plain, cut),
        CUT_UPPER: (residual, cut),
        HEAD: (plain, off),
        HEAD_UPPER: (residual, off),
    }
    return {
        name: _milliseconds(partial(read_rest, model.network, cache, ids, edits))
        for name, (cache, edits) in rotated([*readings.items()], i)
    }


def with_other_end(ids: Ids, n_changed: int) -> Ids:
    """A text of the same length whose first different token is `n_changed` before the end.

    >>> with_other_end((1, 2, 3, 4), 2)
    (1, 2, 1, 1)
    """
    first = len(ids) - n_changed
    return *ids[:first], *[next(id for id in ids if id != ids[first])] * n_changed


def cache_of(network: GPT, ids: Ids, sites: frozenset[ObservedSite]) -> PrefixCache:
    """A cache with the unedited trace of one text."""
    cache = PrefixCache(CACHE_BYTES)
    cache.put(ids, read(network, ids, sites=sites))
    return cache


def read_rest(network: GPT, cache: PrefixCache, ids: Ids, edits: Edits) -> Trace:
    """The trace of a text under edits, of which what is cached is not read again."""
    prefix = cache.longest_prefix(network, ids, edits)
    return read_batch(network, [(prefix, ids[prefix.n_tokens :])], edits)[0]


def _milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
