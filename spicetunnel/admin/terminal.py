"""Output of the admin's commands: plain text, in colour only on a terminal."""

import os
import textwrap
from collections.abc import Iterable

import click

from spicetunnel.policy.problems import Problem

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
        if problem.hint:
            hint(problem.hint)


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
