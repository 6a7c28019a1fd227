"""python -m bench: measure, print tables, write JSON, draw figures."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from app.settings import Settings
from bench import edit_report, figures, machine, measure, report, results
from bench.beside import EXPERIMENTS, beside
from bench.edited import run_edited
from bench.process import running
from bench.results import Memory, Results
from bench.texts import PASSAGE, Passages
from bench.typists import run_typists
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
EDIT_ROUNDS, QUICK_EDIT_ROUNDS = 15, 3
BESIDE_S, QUICK_BESIDE_S = 15, 5


class Measurement(StrEnum):
    """A measurement that can be made alone."""

    SIDE_BY_SIDE = "side-by-side"
    BATCH = "batch"
    MEMORY = "memory"
    TYPISTS = "typists"
    EDITS = "edits"


SLOW = {Measurement.MEMORY, Measurement.EDITS}  # not made by --quick, unless they are chosen


def bench(
    quick: Annotated[
        bool, typer.Option(help="Texts of 8 and 128 tokens, few rounds, four typists: two to three minutes.")
    ] = False,
    only: Annotated[list[Measurement] | None, typer.Option(help="Make only this measurement; may be repeated.")] = None,
    out: Annotated[Path, typer.Option(help="The JSON file to write.")] = HERE / "results.json",
    figures_folder: Annotated[Path, typer.Option("--figures", help="The folder of the figures.")] = HERE / "figures",
    results_file: Annotated[
        Path | None, typer.Option("--from", help="Measure nothing; print and draw the results in this JSON file.")
    ] = None,
) -> None:
    """Measure this app and its peers in turns, with the same texts on the same machine."""
    if results_file:
        run = results.from_file(results_file)
    else:
        run = _measure(set(only or Measurement) - (SLOW if quick and not only else set()), quick)
        run.write(out)
        console.print(f"written: {out}")
    print_tables(run)
    for path in figures.draw(run, figures_folder):
        console.print(f"drawn: {path}")


def print_tables(run: Results) -> None:
    """Print every table that there are results for."""
    if run.samples:
        for table in (report.times, report.ratios, report.sizes):
            console.print(table(run.samples), "")
        console.print(report.peaks(run), "")
    if run.batches:
        console.print(report.batches(run.batches), "")
    if run.loads:
        console.print(report.loads(run.loads), "")
    if run.edited:
        console.print(edit_report.pairs(run.edited.pairs), "")
        console.print(edit_report.sweep(run.edited.sweep), "")
    if run.besides:
        console.print(edit_report.besides(run.besides), "")
    console.print(report.verdicts([*report.targets(run), *edit_report.targets(run)]))


def _measure(measurements: set[Measurement], quick: bool) -> Results:
    settings = Settings()
    torch.set_num_threads(1)
    folder = NAMED[0].fetch(settings.weights_dir, lambda *_: None)
    passages = Passages(load_tokenizer(folder), PASSAGE.read_text())
    rounds, batch_rounds = (QUICK_ROUNDS, QUICK_BATCH_ROUNDS) if quick else (ROUNDS, BATCH_ROUNDS)
    run = Results(machine.describe(), {"model": NAMED[0].name, "dtype": "float32", "quick": quick, "rounds": rounds})
    if Measurement.SIDE_BY_SIDE in measurements:
        _side_by_side(run, folder, passages, rounds)
    if Measurement.BATCH in measurements:
        console.print("batch …")
        run.batches.append(measure.batch_network(folder, passages, batch_rounds))
        with running() as server:
            run.batches.append(measure.batch_live(server.url, passages, batch_rounds))
    if Measurement.MEMORY in measurements:
        console.print("memory …")
        run.eight_traces_mb = measure.eight_traces(passages)
    if Measurement.TYPISTS in measurements:
        _typists(run, QUICK_TYPISTS if quick else TYPISTS, QUICK_TYPING_S if quick else TYPING_S)
    if Measurement.EDITS in measurements:
        _edits(run, folder, passages, quick)
    return run


def _side_by_side(run: Results, folder: Path, passages: Passages, rounds: dict[int, int]) -> None:
    with console.status("loading all contestants") as status:
        for result in measure.side_by_side(folder, passages, rounds):
            if isinstance(result, Memory):
                run.memory.append(result)
            else:
                run.samples.append(result)
                status.update(f"{result.n_tokens} tokens, {len(run.samples)} samples")


def _typists(run: Results, numbers: tuple[int, ...], seconds: float) -> None:
    with running() as server:
        for n_typists in numbers:
            console.print(f"{n_typists} typists for {seconds} s …")
            run.loads.append(run_typists(server.url, n_typists, seconds))


def _edits(run: Results, folder: Path, passages: Passages, quick: bool) -> None:
    console.print("edits …")
    run.edited = run_edited(folder, QUICK_EDIT_ROUNDS if quick else EDIT_ROUNDS)
    with running() as server:
        for number, name in enumerate(EXPERIMENTS):
            console.print(f"one typist beside {name} …")
            seconds = QUICK_BESIDE_S if quick else BESIDE_S
            run.besides.append(beside(server.url, name, passages, seconds, typist=2 * number))


if __name__ == "__main__":
    typer.run(bench)
