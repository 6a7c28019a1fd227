"""The command line: lookback serve, lookback models, lookback fetch NAME, lookback train TEXT…

Importing torch takes seconds. Modules that need it are imported inside a command, after the arguments were checked, so
that help and errors in arguments appear at once.
"""

import dataclasses
import logging
import os
import socket
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from pydantic import ValidationError
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from app.errors import field_message
from app.progress import TaskProgress, TrainingBar, byte_bar, console
from app.settings import Settings
from model.config import ConfigError
from model.training.recipe import Recipe, TrainingError

main = typer.Typer(help="See, live, what every attention head of a GPT attends to.", no_args_is_help=True)

WeightsDir = Annotated[Path | None, typer.Option(help="Folder for fetched weights. [LOOKBACK_WEIGHTS_DIR]")]

# Options of `lookback train` that were renamed.
RENAMED_OPTIONS = {"--rate": "--learning-rate", "--late": "--dropout-after", "--drills": "--curriculum"}


def _refuse_renamed(value: str | None) -> None:
    if value is not None:
        renamed = ", ".join(f"{old} is now {new}" for old, new in RENAMED_OPTIONS.items())
        raise _stop(f"Some options of `lookback train` have new names: {renamed}.")


@main.command()
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; 127.0.0.1 if not set. [LOOKBACK_HOST]")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 8000 if not set. [LOOKBACK_PORT]")] = None,
    model: Annotated[str | None, typer.Option(help="Name of a model, or a checkpoint folder. [LOOKBACK_MODEL]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda. [LOOKBACK_DEVICE]")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or bfloat16. [LOOKBACK_DTYPE]")] = None,
    weights_dir: WeightsDir = None,
) -> None:
    """Serve the pages and the JSON API. The model is fetched and loaded in the background."""
    settings = _settings(host=host, port=port, model=model, device=device, dtype=dtype, weights_dir=weights_dir)
    # torch's threads spin while they wait for each other, by OpenMP's default for about a millisecond. If a browser or
    # the event loop needs the core meanwhile, a spinning thread takes it from a working one, and a text takes four
    # times as long. A shorter spin costs nothing measurable on an idle machine. Training keeps the default: its steps
    # took 0.26 s with it, 0.36 s with the short spin. torch reads the variable when it is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    from app.main import create_app
    from model.weights.names import WeightsError

    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)]
    )
    logging.getLogger("lookback").setLevel(logging.INFO)
    with byte_bar() as bar:
        try:
            created = create_app(settings, TaskProgress(bar))
        except WeightsError as error:
            raise _stop(str(error)) from error
        config = uvicorn.Config(
            created,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=3,
            h11_max_incomplete_event_size=1 << 18,  # the URL has the text, which may be long
            http="h11",
            ws="websockets-sansio",
            ws_max_size=settings.max_body_bytes,
            ws_per_message_deflate=False,  # compression would take CPU time from torch, and gain little
        )
        _Server(config).run()


@main.command()
def models(
    weights_dir: WeightsDir = None,
    model: Annotated[
        str | None, typer.Option(help="The default model; a folder is listed, too. [LOOKBACK_MODEL]")
    ] = None,
) -> None:
    """List the models, and whether their weights are on this machine."""
    settings = _settings(weights_dir=weights_dir, model=model)
    from model.weights.catalogue import catalogue
    from model.weights.names import WeightsError

    table = Table("name", "what it is", "layers × heads", "context in tokens", "weights", "source", box=None)
    try:
        for source in catalogue(settings.model).values():
            config = source.config()
            weights = "here" if source.local(settings.weights_dir) else source.fetch_command
            shape = f"{config.n_layers} × {config.n_heads}"
            context = f"{config.n_context:,}"
            if config.n_context > settings.max_tokens:
                context += f" (LOOKBACK_MAX_TOKENS: {settings.max_tokens:,})"
            table.add_row(source.name, source.about(settings.dtype), shape, context, weights, source.origin)
    except WeightsError as error:
        raise _stop(str(error)) from error
    Console().print(table)


@main.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Name of a model; `lookback models` lists them.")],
    weights_dir: WeightsDir = None,
) -> None:
    """Fetch the weights of a model, so that serving it needs no network."""
    settings = _settings(weights_dir=weights_dir)
    from model.weights.catalogue import catalogue
    from model.weights.names import WeightsError

    with byte_bar() as bar:
        try:
            folder = catalogue(name)[name].fetch(settings.weights_dir, TaskProgress(bar))
        except KeyError as error:
            raise _stop(f"{name} is a folder; there is nothing to fetch.") from error
        except WeightsError as error:
            raise _stop(str(error)) from error
    console.print(f"{name} is in {folder}", soft_wrap=True)


@main.command("train")
def train_model(
    texts: Annotated[list[Path], typer.Argument(help="Text files, with a line <|endoftext|> between two texts.")],
    out: Annotated[Path, typer.Option(help="Folder of the run. The same command continues a run that was stopped.")],
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = Recipe.n_steps,
    layers: Annotated[int, typer.Option(min=1, help="Layers.")] = Recipe.n_layers,
    heads: Annotated[int, typer.Option(min=1, help="Heads per layer.")] = Recipe.n_heads,
    width: Annotated[int, typer.Option(min=1, help="Features per token.")] = Recipe.d_model,
    context: Annotated[int, typer.Option(min=8, help="Length of the context, in tokens.")] = Recipe.n_context,
    vocab: Annotated[int, typer.Option(min=257, help="Size of the vocabulary, in tokens.")] = Recipe.n_vocab,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Folder with a tokenizer to use. By default, one is trained on the texts.")
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Sequences per step, each as long as a context.")
    ] = Recipe.batch_size,
    learning_rate: Annotated[float, typer.Option(help="The maximum of the learning rate.")] = Recipe.learning_rate,
    dropout: Annotated[float, typer.Option(help="Probability that a number is set to 0.")] = Recipe.dropout,
    dropout_after: Annotated[
        float, typer.Option(help="Fraction of the steps before dropout starts.")
    ] = Recipe.dropout_after,
    curriculum: Annotated[
        float, typer.Option(help="Fraction of the steps, at the beginning, with repeated random tokens and no text.")
    ] = Recipe.curriculum,
    repeats: Annotated[
        float, typer.Option(help="Fraction of the sequences that are repeated random tokens after that.")
    ] = Recipe.repeats,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = Recipe.seed,
    save: Annotated[
        float, typer.Option(help="Seconds between two saved states, from which a run can continue.")
    ] = 30.0,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda. [LOOKBACK_DEVICE]")] = None,
    bfloat16: Annotated[
        bool | None, typer.Option(help="Multiply in bfloat16. By default, only if the device supports it.")
    ] = None,
    _renamed: Annotated[str | None, typer.Option(*RENAMED_OPTIONS, hidden=True, callback=_refuse_renamed)] = None,
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
            dropout_after=dropout_after,
            n_steps=steps,
            batch_size=batch,
            learning_rate=learning_rate,
            n_warmup=min(Recipe.n_warmup, steps // 10),
            curriculum=curriculum,
            repeats=repeats,
            bfloat16=bool(bfloat16),
            seed=seed,
        )
    except (TrainingError, ConfigError) as error:
        raise _stop(str(error)) from error
    if bfloat16 is None:
        from model.training.start import has_bfloat16

        recipe = dataclasses.replace(recipe, bfloat16=has_bfloat16(settings.torch_device))
    _train(out, texts, recipe, tokenizer, settings, save)
    console.print(f"{out} is trained. Look at it with: lookback serve --model {out}", soft_wrap=True)


def _train(
    out: Path, texts: list[Path], recipe: Recipe, tokenizer: Path | None, settings: Settings, save_seconds: float
) -> None:
    """Prepare and train a run, or continue it."""
    from model.tokenizer import TokenizerError
    from model.training.run import train as take_steps
    from model.training.start import prepare_run
    from model.weights.names import WeightsError

    try:
        with console.status("reading the texts and training the tokenizer"):
            run = prepare_run(out, texts, recipe, tokenizer)
        if run.n_steps_done < recipe.n_steps:
            n_held_out = len(run.corpus.held_out)
            console.print(f"{run.corpus.n_tokens:,} tokens to train on, {n_held_out:,} held out")
            with TrainingBar(recipe.n_steps) as bar:
                take_steps(out, run.recipe, run.corpus, settings.torch_device, bar, save_seconds=save_seconds)
    except (TrainingError, WeightsError, TokenizerError) as error:
        raise _stop(str(error)) from error
    except OSError as error:
        reason = f"{error.strerror or error}: {error.filename or out}"
        raise _stop(
            f"{reason}. The last checkpoint in {out} is intact; the same command continues from there."
        ) from error
    except KeyboardInterrupt:
        raise _stop(f"Stopped. The same command continues from the last state saved in {out}.") from None


class _Server(uvicorn.Server):
    """Prints the address as soon as the server accepts requests."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port, *_ = self.servers[0].sockets[0].getsockname()
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(
                host, host
            )  # "all addresses" cannot be opened in a browser
            host = f"[{host}]" if ":" in host else host
            console.print(f"Lookback is at [bold]http://{host}:{port}[/]  (Ctrl-C stops it)", soft_wrap=True)


def _settings(**options: str | int | Path | None) -> Settings:
    """The settings, with the options that were given in place of environment variables."""
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        raise _stop("; ".join(field_message(detail) for detail in error.errors())) from error


def _stop(message: str) -> typer.Exit:
    """Print an error. Returns the exception that ends the command."""
    console.print(f"[bold red]Error:[/] {message}", soft_wrap=True, highlight=False)
    return typer.Exit(2)
