"""The command line: lookback serve, lookback models, lookback fetch NAME, lookback train TEXT…

torch takes seconds to import. So what imports it is imported by the command that needs it, after the arguments have
been checked: help, and the refusal of a wrong argument, come at once.
"""

import dataclasses
import logging
import os
from pathlib import Path
from typing import Annotated, Any, Self

import typer
import uvicorn
from pydantic import ValidationError
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from app.settings import Settings
from model.config import ConfigError
from model.training.recipe import Recipe, TrainingError

main = typer.Typer(help="See, live, what every attention head of a GPT looks at.", no_args_is_help=True)
console = Console(stderr=True)

Cache = Annotated[Path | None, typer.Option(help="Folder for weights that were fetched. [LOOKBACK_CACHE]")]


@main.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on: 127.0.0.1. [LOOKBACK_HOST]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on: 8000. [LOOKBACK_PORT]")] = None,
    model: Annotated[str | None, typer.Option(help="A name, or a checkpoint folder. [LOOKBACK_MODEL]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda. [LOOKBACK_DEVICE]")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or bfloat16. [LOOKBACK_DTYPE]")] = None,
    cache: Cache = None,
) -> None:
    """Serve the page and the JSON API. The model is fetched and loaded while the page is already there."""
    settings = _settings(host=host, port=port, model=model, device=device, dtype=dtype, cache=cache)
    # While torch's threads wait for one another they spin, by OpenMP's default for about a millisecond. When a browser
    # or the event loop wants the core, the thread that works loses it to one that spins, and a text takes four times
    # as long. So short a spin costs nothing measurable on a quiet machine. torch reads it when it is imported. Training
    # computes without a pause and alone: a step took 0.36 s with the short spin, 0.26 with the default.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    from app.main import create_app
    from model.weights.names import WeightsError

    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)]
    )
    logging.getLogger("lookback").setLevel(logging.INFO)
    with _bar() as bar:
        try:
            created = create_app(settings, _Report(bar))
        except WeightsError as error:
            raise _stop(str(error)) from error
        config = uvicorn.Config(
            created,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=3,
            h11_max_incomplete_event_size=1 << 18,  # an address holds the text, which may be long
            http="h11",
            ws="websockets-sansio",
            ws_max_size=settings.max_body_bytes,
            ws_per_message_deflate=False,  # compressing would take a core's time from torch, and gain little
        )
        _Server(config).run()


@main.command()
def models(cache: Cache = None, model: str | None = None) -> None:
    """List the models that can be asked for, and whether their weights are on this machine."""
    settings = _settings(cache=cache, model=model)
    from model.weights.catalogue import catalogue
    from model.weights.names import WeightsError

    table = Table("name", "what it is", "layers × heads", "context in tokens", "weights", "source", box=None)
    try:
        for source in catalogue(settings.model).values():
            config = source.config()
            here = "here" if source.local(settings.cache) else source.fetch_command
            shape = f"{config.n_layers} × {config.n_heads}"
            context = f"{config.n_context:,}"
            if config.n_context > settings.max_tokens:
                context += f" (LOOKBACK_MAX_TOKENS: {settings.max_tokens:,})"
            table.add_row(source.name, source.about(settings.dtype), shape, context, here, source.origin)
    except WeightsError as error:
        raise _stop(str(error)) from error
    Console().print(table)


@main.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A model's name; `lookback models` lists them.")], cache: Cache = None
) -> None:
    """Fetch a model's weights, so that serving it needs no network."""
    settings = _settings(cache=cache)
    from model.weights.catalogue import catalogue
    from model.weights.names import WeightsError

    with _bar() as bar:
        try:
            folder = catalogue(name)[name].fetch(settings.cache, _Report(bar))
        except KeyError as error:
            raise _stop(f"{name} is a folder; there is nothing to fetch.") from error
        except WeightsError as error:
            raise _stop(str(error)) from error
    console.print(f"{name} is in {folder}", soft_wrap=True)


@main.command()
def train(
    texts: Annotated[list[Path], typer.Argument(help="Text files; a line <|endoftext|> stands between two texts.")],
    out: Annotated[Path, typer.Option(help="Folder of the run. The same command goes on with a run that was stopped.")],
    steps: Annotated[int, typer.Option(min=1)] = Recipe.n_steps,
    layers: Annotated[int, typer.Option(min=1)] = Recipe.n_layers,
    heads: Annotated[int, typer.Option(min=1, help="Heads of each layer.")] = Recipe.n_heads,
    width: Annotated[int, typer.Option(min=1, help="Features of a token.")] = Recipe.d_model,
    context: Annotated[int, typer.Option(min=8, help="The most tokens read at a time.")] = Recipe.n_context,
    vocab: Annotated[int, typer.Option(min=257, help="Tokens of the vocabulary.")] = Recipe.n_vocab,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A folder whose tokenizer to take, instead of --vocab.")
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Stretches of one context that a step learns from.")
    ] = Recipe.n_texts,
    rate: Annotated[float, typer.Option(help="The learning rate at its highest.")] = Recipe.learning_rate,
    dropout: Annotated[float, typer.Option(help="The share of numbers that are dropped.")] = Recipe.dropout,
    late: Annotated[float, typer.Option(help="The share of the steps that are taken before any is.")] = Recipe.late,
    drills: Annotated[
        float, typer.Option(help="The share of the steps, at the beginning, that only learn to look back.")
    ] = Recipe.drills,
    repeats: Annotated[
        float, typer.Option(help="The share of stretches that repeat themselves, after those.")
    ] = Recipe.repeats,
    seed: int = Recipe.seed,
    save: Annotated[float, typer.Option(help="Seconds between two states from which a stopped run goes on.")] = 30.0,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda. [LOOKBACK_DEVICE]")] = None,
    bfloat16: Annotated[
        bool | None, typer.Option(help="Multiply in bfloat16; where the device can, if not said.")
    ] = None,
) -> None:
    """Train a GPT-2 from scratch on your own texts. `lookback serve --model FOLDER` then shows it."""
    settings = _settings(device=device)
    try:
        recipe = Recipe(
            n_layers=layers,
            n_heads=heads,
            d_model=width,
            n_context=context,
            n_vocab=vocab,
            dropout=dropout,
            late=late,
            n_steps=steps,
            n_texts=batch,
            learning_rate=rate,
            n_warmup=min(Recipe.n_warmup, steps // 10),
            drills=drills,
            repeats=repeats,
            bfloat16=bool(bfloat16),
            seed=seed,
        )
    except (TrainingError, ConfigError) as error:
        raise _stop(str(error)) from error
    from model.tokenizer import TokenizerError
    from model.training.run import train as take_steps
    from model.training.start import has_bfloat16, start
    from model.weights.names import WeightsError

    place = settings.torch_device
    if bfloat16 is None:
        recipe = dataclasses.replace(recipe, bfloat16=has_bfloat16(place))
    try:
        with console.status("reading the texts and making the vocabulary"):
            begun = start(out, texts, recipe, tokenizer)
        if begun.n_done < steps:
            console.print(f"{begun.corpus.n_tokens:,} tokens to learn from, {len(begun.corpus.held):,} held out")
            with _Steps(steps) as bar:
                take_steps(out, begun.recipe, begun.corpus, place, bar, save_seconds=save)
    except (TrainingError, WeightsError, TokenizerError) as error:
        raise _stop(str(error)) from error
    except OSError as error:
        why = f"{error.strerror or error}: {error.filename or out}"
        raise _stop(f"{why}. What {out} held before is as it was; the same command goes on from there.") from error
    except KeyboardInterrupt:
        raise _stop(f"Stopped. The same command goes on from the last state saved in {out}.") from None
    console.print(f"{out} is trained. See it: lookback serve --model {out}", soft_wrap=True)


class _Steps:
    """The steps of a run as a bar, with loss and speed; a line now and then where there is no terminal."""

    def __init__(self, n_steps: int) -> None:
        columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console)
        self._task = self._bar.add_task("", total=n_steps)
        self._n_steps = n_steps
        self._loss = self._speed = 0.0  # means over the latest steps

    def __enter__(self) -> Self:
        if console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, step: int, loss: float, tokens_per_second: float) -> None:
        share = 0.05 if self._loss else 1.0
        self._loss += share * (loss - self._loss)
        self._speed += share * (tokens_per_second - self._speed)
        words = f"loss {self._loss:.3f} · {self._speed:,.0f} tokens a second"
        self._bar.update(self._task, completed=step, description=words)
        if not console.is_terminal and (step % 50 == 0 or step == self._n_steps):
            console.print(f"step {step} of {self._n_steps}: {words}")


class _Server(uvicorn.Server):
    """Says where the page is as soon as it is there."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port, *_ = self.servers[0].sockets[0].getsockname()
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # all of them; this one can be clicked
            shown = f"[{host}]" if ":" in host else host
            console.print(f"Lookback is at [bold]http://{shown}:{port}[/]  (Ctrl-C stops it)", soft_wrap=True)


class _Report:
    """Progress of the engine's or the catalogue's work, as a bar on the terminal."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._doing = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._doing:
            if self._task is not None:
                self._bar.remove_task(self._task)
            if not console.is_terminal:
                console.print(f"{what} …", soft_wrap=True)
            self._doing, self._task = what, self._bar.add_task(what, total=None)
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=total or None)


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


def _settings(**options: Any) -> Settings:
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        raise _stop("; ".join(_what_is_wrong(detail) for detail in error.errors())) from error


def _what_is_wrong(detail: Any) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    return f"{'.'.join(map(str, detail['loc']))}: {message}" if detail["loc"] else message


def _stop(message: str) -> typer.Exit:
    console.print(f"[bold red]Error:[/] {message}", soft_wrap=True, highlight=False)
    return typer.Exit(2)
