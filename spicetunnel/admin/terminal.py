"""Output of the admin's commands: plain text, in colour only on a terminal."""

import os
import textwrap
import unicodedata
from collections.abc import Iterable

import click

from spicetunnel.policy.problems import Problem, printable

WIDTH = 80


def say(text: str = "", err: bool = False) -> None:
    """Print one line. click drops the colours if there is no terminal."""
    click.echo(text, err=err, color=False if os.environ.get("NO_COLOR") else None)


def hint(text: str) -> None:
    say(f"{click.style('hint:', fg='cyan')} {text}", err=True)


def show_problems(problems: Iterable[Problem], kind: str = "") -> None:
    """Each with its place, its kind (such as `warning`), its message and its hint, on stderr."""
    mark = f"{click.style(f'{kind}:', fg='yellow')} " if kind else ""
    for problem in problems:
        say(f"{click.style(f'{problem.place}:', bold=True)} {mark}{problem.message}", err=True)
        for line in excerpt(problem):
            say(line, err=True)
        if problem.hint:
            hint(problem.hint)


def excerpt(problem: Problem) -> list[str]:
    """The problem's line, with its number, and below it a caret at its column."""
    if not problem.text:
        return []
    at = max(0, problem.column - 1)
    before, after = _spelt(problem.text[:at]), _spelt(problem.text[at:])
    text, number = before + after, f"{problem.line:>6} | "
    room = WIDTH - len(number)
    hidden = max(0, len(before) - room + _AHEAD) if len(text) > room else 0
    row = f"{number}{text[hidden : hidden + room]}"
    if not problem.column:
        return [row]
    # Wide characters take two columns, those that combine with the one before take none.
    width = sum(_columns(each) for each in before[hidden:])
    return [row, f"{' ' * (len(number) - 2)}| {' ' * width}^"]


_AHEAD = 20  # characters shown behind the caret, if the line is cut


def _spelt(text: str) -> str:
    return printable(text.replace("\t", " "))


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def wrapped(text: str, begin: str = "", indent: str = "    ") -> str:
    """`begin` and `text`, in lines of at most 80 columns. A long word is not broken."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=begin,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def field(name: str, text: str) -> str:
    """A line `  name      text` below a heading."""
    return wrapped(text, f"  {name:<10}", " " * 12)
