"""Progress bars of the command line."""

from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True)


class TrainingBar:
    """The steps of a training run as a bar, with loss and speed; a line every 50 steps if there is no terminal."""

    def __init__(self, n_steps: int) -> None:
        columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console)
        self._task = self._bar.add_task("", total=n_steps)
        self._n_steps = n_steps
        self._loss = self._speed = 0.0  # exponential moving averages

    def __enter__(self) -> Self:
        if console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Show the number of steps taken, and the mean loss and speed of the latest ones."""
        update = 0.05 if self._loss else 1.0
        self._loss += update * (loss - self._loss)
        self._speed += update * (tokens_per_second - self._speed)
        text = f"loss {self._loss:.3f} · {self._speed:,.0f} tokens per second"
        self._bar.update(self._task, completed=step, description=text)
        if not console.is_terminal and (step % 50 == 0 or step == self._n_steps):
            console.print(f"step {step} of {self._n_steps}: {text}")


class TaskProgress:
    """The progress of fetching, converting or loading a model, as a bar; one line per task if there is no terminal."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._what = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show a task and its bytes, done and in total (0 if unknown)."""
        if what != self._what:
            if self._task is not None:
                self._bar.remove_task(self._task)
            if not console.is_terminal:
                console.print(f"{what} …", soft_wrap=True)
            self._what, self._task = what, self._bar.add_task(what, total=None)
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=total or None)


def byte_bar() -> Progress:
    """A bar that counts bytes, and disappears at the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)
