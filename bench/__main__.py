"""python -m bench: measure, print the tables, write the JSON, draw the figures."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from app.settings import Settings
from bench import figures, machine, measure, report, results
from bench.process import running
from bench.results import Memory, Results, Sample
from bench.texts import PASSAGE, Passages
from bench.typists import typists
from model.weights.catalogue import NAMED
from model.weights.tokenizer_files import load_tokenizer

HERE = Path(__file__).parent
console = Console(width=None if sys.stdout.isatty() else 180)

ROUNDS = {8: 15, 32: 15, 128: 9, 512: 5, 1024: 5, 2048: 2}  # tokens -> rounds
QUICK_ROUNDS = {8: 5, 128: 3}
TYPISTS = (1, 4, 16)
QUICK_TYPISTS = (4,)
TYPING_S, QUICK_TYPING_S = 30, 10
BATCH_ROUNDS, QUICK_BATCH_ROUNDS = 15, 3


class Part(StrEnum):
    """What can be measured by itself."""

    SIDE_BY_SIDE = "side-by-side"
    BATCH = "batch"
    MEMORY = "memory"
    TYPISTS = "typists"


def bench(
    quick: Annotated[
        bool, typer.Option(help="Texts of 8 and 128 tokens, few rounds, four typists: three minutes.")
    ] = False,
    only: Annotated[list[Part] | None, typer.Option(help="Measure this part alone; may be given again.")] = None,
    out: Annotated[Path, typer.Option(help="Where the JSON is written.")] = HERE / "results.json",
    drawn: Annotated[Path, typer.Option(help="The folder of the figures.")] = HERE / "figures",
    again: Annotated[Path | None, typer.Option(help="Measure nothing: print and draw what this JSON holds.")] = None,
) -> None:
    """Measure this app beside its peers: the same texts, the same machine, in turns."""
    if again:
        found = results.from_file(again)
    else:
        found = _measured(set(only or Part) - ({Part.MEMORY} if quick and not only else set()), quick)
        found.write(out)
        console.print(f"written: {out}")
    show(found)
    for path in figures.draw(found, drawn):
        console.print(f"drawn: {path}")


def show(found: Results) -> None:
    """Every table that there is something for."""
    if found.samples:
        for table in (report.times, report.ratios, report.sizes):
            console.print(table(found.samples), "")
        console.print(report.peaks(found), "")
    if found.batches:
        console.print(report.batches(found.batches), "")
    if found.loads:
        console.print(report.loads(found.loads), "")
    console.print(report.verdicts(report.targets(found)))


def _measured(parts: set[Part], quick: bool) -> Results:
    """Measure some parts, one after another."""
    settings = Settings()
    torch.set_num_threads(1)
    folder = NAMED[0].fetch(settings.cache, lambda *_: None)
    passages = Passages(load_tokenizer(folder), PASSAGE.read_text())
    rounds, batch_rounds = (QUICK_ROUNDS, QUICK_BATCH_ROUNDS) if quick else (ROUNDS, BATCH_ROUNDS)
    found = Results(machine.describe(), {"model": NAMED[0].name, "dtype": "float32", "quick": quick, "rounds": rounds})
    if Part.SIDE_BY_SIDE in parts:
        _side_by_side(found, folder, passages, rounds)
    if Part.BATCH in parts:
        console.print("batch …")
        found.batches.append(measure.batch_alone(folder, passages, batch_rounds))
        with running() as server:
            found.batches.append(measure.batch_live(server.url, passages, batch_rounds))
    if Part.MEMORY in parts:
        console.print("memory …")
        found.eight_traces_mb = measure.eight_traces(passages)
    if Part.TYPISTS in parts:
        _typists(found, QUICK_TYPISTS if quick else TYPISTS, QUICK_TYPING_S if quick else TYPING_S)
    return found


def _side_by_side(found: Results, folder: Path, passages: Passages, rounds: dict[int, int]) -> None:
    with console.status("loading everybody") as status:
        for one in measure.side_by_side(folder, passages, rounds):
            if isinstance(one, Sample):
                found.samples.append(one)
                status.update(f"{one.n_tokens} tokens, {len(found.samples)} samples")
            elif isinstance(one, Memory):
                found.memory.append(one)


def _typists(found: Results, numbers: tuple[int, ...], seconds: float) -> None:
    with running() as server:
        for n_typists in numbers:
            console.print(f"{n_typists} typists for {seconds} s …")
            found.loads.append(typists(server.url, n_typists, seconds))


if __name__ == "__main__":
    typer.run(bench)
