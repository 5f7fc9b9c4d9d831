"""The options of the command line: how they are parsed, and which exclude each other."""

from dataclasses import dataclass

import click

from spice_connect.errors import UsageError
from spice_connect.ui.terminal import Terminal


@dataclass(frozen=True)
class Options:
    """The parsed command line, with click's names. `arguments` are for the viewer."""

    vm: str | None
    arguments: list[str]
    host: str | None
    run_dir: str | None
    monitors: tuple[int, ...]
    take_over: bool
    wait: bool
    no_reconnect: bool
    full_screen: bool
    no_viewer: bool
    desktop_entry: bool
    as_list: bool
    window: bool
    as_json: bool
    quiet: bool
    verbose: int

    def check(self) -> None:
        """Raises UsageError for options that exclude each other."""
        for flag, option in (self.as_json, "--json"), (self.as_list, "--list"):
            if self.vm is not None and flag:
                raise UsageError(f"{option} is for the list of VMs", "leave out the VM's name")
        if self.window and (self.vm or self.as_list or self.as_json or self.no_viewer):
            raise UsageError(
                "--window shows the list of VMs and opens one of them", "leave the rest out"
            )
        if self.quiet and self.verbose:
            raise UsageError("--quiet and --verbose are opposites", "leave one of them out")
        if self.no_viewer and (self.full_screen or self.monitors or self.arguments):
            raise UsageError(
                "--no-viewer leaves no viewer for these options", "leave one of them out"
            )

    def check_needs_no_vm(self) -> None:
        """To be called if no VM is named. Raises UsageError if an option needs one."""
        if self.of_a_session() or self.no_viewer:
            *most, last = *self._flags_of_a_session(), "--monitors", "--no-viewer"
            raise UsageError(
                f"{', '.join(most)} and {last} need a VM",
                "name one, or pick one on a terminal, without --list",
            )

    def of_a_session(self) -> list[str]:
        """The options that say how to open the VM, as words of a command line for an icon."""
        words = [option for option, given in self._flags_of_a_session().items() if given]
        monitors = ",".join(map(str, self.monitors))
        return [*words, f"--monitors={monitors}"] if monitors else words

    def _flags_of_a_session(self) -> dict[str, bool]:
        return {
            "--take-over": self.take_over,
            "--wait": self.wait,
            "--no-reconnect": self.no_reconnect,
            "--full-screen": self.full_screen,
        }


class Command(click.Command):
    """Words after a `--` that follows the VM are arguments for the viewer."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        own, rest = _cut(args)
        left = super().parse_args(context, own)
        if rest and context.params["vm"] is None:  # `-- VM`: the VM comes after the mark
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


def show_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib import metadata  # noqa: PLC0415 - 20 ms

        try:
            version = metadata.version("spicetunnel")
        except metadata.PackageNotFoundError:
            version = "(run from its source, not installed)"
        Terminal().result(f"spice-connect {version}")
        context.exit()


def show_completion(context: click.Context, _option: click.Parameter, shell: str | None) -> None:
    if shell:
        from spice_connect.ui import completion  # noqa: PLC0415 - used once per shell

        Terminal().result(completion.script(shell, context.command))
        context.exit()
