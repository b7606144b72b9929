"""What the user sees: a progress bar on a terminal, one line per tick when piped."""

from __future__ import annotations

import json
import sys
from typing import Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from faussaire.core.errors import UserError
from faussaire.core.events import (
    Diagnosed,
    Event,
    Finished,
    Measured,
    Noted,
    Saved,
    StageBegan,
    Started,
    Tick,
    Treated,
)
from faussaire.core.quantity import format_bytes, format_count, format_duration

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def fail(error: UserError) -> None:
    """Print cause and hint on standard error."""
    err.print(f"[bold red]faussaire:[/] {escape(error.cause)}")
    if error.hint:
        err.print(f"  {escape(error.hint)}")


def warn(text: str) -> None:
    """Print a warning on standard error."""
    err.print(f"[yellow]note:[/] {escape(text)}")


def print_json(value: Any) -> None:
    """Print JSON on standard output, undecorated."""
    print(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def print_table(table: Table) -> None:
    """Print a table at its full width: a narrow terminal wraps lines, and nothing is cut."""
    wide = out.options.update(width=100_000)
    table.width = Measurement.get(out, wide, table).maximum
    out.print(table)


def parse(command: str, kind: Any, arguments: list[str], **how: Any) -> Any:
    """A command's options from its words; a mistake ends with exit code 2 and the nearest name."""
    return tyro.cli(kind, args=arguments, prog=f"faussaire {command}", **how)


def describe_signs(tick: Tick) -> str:
    """`D(x) 0.61  D(G(z)) 0.32  discriminator 1.02  generator 1.64`: watched values, then losses.

    A phase with one term is named by the phase alone.
    """
    phases = [name.partition(".")[0] for name in tick.losses]
    losses = {
        (name.partition(".")[0] if phases.count(name.partition(".")[0]) == 1 else name): value
        for name, value in tick.losses.items()
    }
    shown = {**dict(sorted(tick.signs.items(), reverse=True)), **losses}
    return "  ".join(f"{name} {value:.3g}" for name, value in shown.items())


class LineConsole:
    """One line per tick, at a growing interval, for pipes and log files."""

    def __init__(self) -> None:
        self._next = 0.0
        self._heard = True

    def see(self, event: Event) -> None:
        if isinstance(event, Tick):
            if event.elapsed >= self._next or event.progress >= 1.0:
                self._next = event.elapsed + min(60.0, max(2.0, event.elapsed * 0.05))
                self._say(
                    f"{event.progress:6.1%}  {format_count(event.examples):>6} examples  "
                    f"{event.per_second:,.0f}/s  {format_duration(event.elapsed)} "
                    f"(left {format_duration(event.remaining)})  {describe_signs(event)}"
                )
        elif (text := _sentence(event)) is not None:
            self._say(text)

    def _say(self, text: str) -> None:
        if self._heard:
            try:
                print(text, flush=True)
            except BrokenPipeError:
                self._heard = False  # the reader (head, a pager) has gone; training goes on

    def close(self) -> None:
        pass


class BarConsole:
    """A live bar on a terminal."""

    def __init__(self) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[stage]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>5.1f}%  {task.fields[line]}"),
            console=out,
            transient=False,
            # Only ticks move it: a thread that redraws would take time from training.
            auto_refresh=False,
        )
        self._task = self._bar.add_task("train", total=1.0, stage="", line="starting")
        self._began = False

    def see(self, event: Event) -> None:
        if isinstance(event, Tick):
            line = (
                f"{format_count(event.examples)} seen  {event.per_second:,.0f}/s  "
                f"left {format_duration(event.remaining)}  [dim]{escape(describe_signs(event))}[/]"
            )
            self._bar.update(self._task, completed=event.progress, line=line)
            self._bar.refresh()
        elif isinstance(event, StageBegan):
            if not self._began:
                self._bar.start()
                self._began = True
            self._bar.update(self._task, stage=event.stage)
        elif isinstance(event, Finished):
            self.close()
        elif (text := _sentence(event)) is not None and not isinstance(event, Saved):
            self._bar.console.print(escape(text))

    def close(self) -> None:
        if self._began:
            self._bar.stop()
            self._began = False


def _sentence(event: Event) -> str | None:
    """An event other than a tick in words; None where the user need not hear of it."""
    if isinstance(event, Started):
        size = ", ".join(f"{name} {format_count(n)}" for name, n in event.parameters.items())
        begin = f"continuing at {event.examples:,}, to" if event.examples else "for"
        much = f"{event.total:,} examples"
        if event.seconds is not None:
            much = f"{format_duration(event.seconds)} (about {much})"
        return f"training {event.family} on {event.device}, {begin} {much} ({size})"
    if isinstance(event, StageBegan):
        return f"stage: {event.stage}"
    if isinstance(event, Noted):
        return f"note: {event.message}"
    if isinstance(event, Measured):
        values = ", ".join(f"{name} {value:.4g}" for name, value in event.figures.items())
        best = ", the best so far" if event.best else ""
        return f"measured {values}{best} (in {format_duration(event.seconds)})"
    if isinstance(event, Diagnosed):
        return _verdict(event)
    if isinstance(event, Treated):
        return f"balance: {event.why}"
    if isinstance(event, Saved):
        return f"saved checkpoint {int(event.path):,} in {format_duration(event.seconds)}"
    return None


def _verdict(event: Diagnosed) -> str:
    """`doctor: collapse, since 12k examples (diversity .1, below .3). --lr 5e-5 ...`."""
    if not event.ill:
        return f"doctor: {event.verdict}: {event.meaning}"
    found = f" ({'; '.join(event.evidence)})" if event.evidence else ""
    first = f" Try: {event.advice[0]}" if event.advice else ""
    return f"doctor: {event.verdict} ({event.confidence:.0%} sure): {event.meaning}{found}.{first}"


def console() -> BarConsole | LineConsole:
    """The right console for where standard output goes."""
    return BarConsole() if out.is_terminal and sys.stdout.isatty() else LineConsole()


class Reading:
    """Shows how far the reading of the data is, where that takes longer than a moment."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._tasks: dict[str, Any] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if not sys.stderr.isatty() or total < 500:
            return
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
                TimeRemainingColumn(compact=True),
                TextColumn("left"),
                console=err,
                transient=True,
            )
            self._bar.start()
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total)
        self._bar.update(self._tasks[what], completed=done, total=total)

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def memory(size: int) -> str:
    """Bytes for people, or `unknown`."""
    return format_bytes(size) if size else "unknown"
