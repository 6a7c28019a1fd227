"""The command line: lookback serve, lookback models, lookback fetch NAME."""

import logging
import os
from pathlib import Path
from typing import Annotated, Any

# While torch's threads wait for one another they spin, by OpenMP's default for about a millisecond. When a browser or
# the event loop wants the core, the one that works loses it to one that spins, and a reading takes four times as long.
# So short a spin costs nothing measurable on a quiet machine. It is read when torch is imported, so it stands here.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import typer
import uvicorn
from pydantic import ValidationError
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from app.main import create_app
from app.settings import Settings
from model.weights.catalogue import catalogue
from model.weights.names import WeightsError

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
    table = Table("name", "family", "layers × heads", "context", "weights", "source", box=None)
    try:
        for source in catalogue(settings.model).values():
            config = source.config()
            here = "here" if source.local(settings.cache) else "to be fetched"
            shape = f"{config.n_layers} × {config.n_heads}"
            context = f"{min(config.n_context, settings.max_tokens):,}"
            table.add_row(source.name, config.family, shape, context, here, source.origin)
    except WeightsError as error:
        raise _stop(str(error)) from error
    Console().print(table)


@main.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A model's name; `lookback models` lists them.")], cache: Cache = None
) -> None:
    """Fetch a model's weights, so that serving it needs no network."""
    settings = _settings(cache=cache)
    with _bar() as bar:
        try:
            folder = catalogue(name)[name].fetch(settings.cache, _Report(bar))
        except KeyError as error:
            raise _stop(f"{name} is a folder; there is nothing to fetch.") from error
        except WeightsError as error:
            raise _stop(str(error)) from error
    console.print(f"{name} is in {folder}", soft_wrap=True)


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
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise _stop(wrong) from error


def _stop(message: str) -> typer.Exit:
    console.print(f"[bold red]Error:[/] {message}", soft_wrap=True, highlight=False)
    return typer.Exit(2)
