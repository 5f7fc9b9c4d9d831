"""How the command line is read, beyond what click does by itself."""

import click

from spice_connect.errors import UsageError
from spice_connect.ui.terminal import Terminal


def show_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib import metadata  # noqa: PLC0415 - costs 20 ms

        try:
            version = metadata.version("spicetunnel")
        except metadata.PackageNotFoundError:
            version = "(run from its source, not installed)"
        Terminal().result(f"spice-connect {version}")
        context.exit()


class Command(click.Command):
    """What stands behind a `--` after the VM is the viewer's."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        own, rest = _cut(args)
        left = super().parse_args(context, own)
        if rest and context.params["vm"] is None:  # the mark only says: no option follows
            context.params["vm"] = rest.pop(0)
            if rest:
                raise UsageError(
                    f"got unexpected extra argument ({rest[0]})", "spice-connect VM -- ARGUMENTS"
                )
        context.params["arguments"] = rest
        return left

    def collect_usage_pieces(self, context: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(context), "[-- ARGUMENTS OF THE VIEWER]"]


def _cut(args: list[str]) -> tuple[list[str], list[str]]:
    mark = args.index("--") if "--" in args else len(args)
    return args[:mark], args[mark + 1 :]


def show_completion(context: click.Context, _option: click.Parameter, shell: str | None) -> None:
    if shell:
        from spice_connect.ui import completion  # noqa: PLC0415 - once in a shell's life

        Terminal().result(completion.script(shell, context.command))
        context.exit()
