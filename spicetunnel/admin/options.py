"""What several commands share on their command lines."""

import click

DEFAULT_MAP = "/etc/spicetunnel/vms.yaml"

YEARS = range(1970, 9000)  # far from where a time zone would leave the calendar

map_option = click.option(
    "--map",
    "map_file",
    default=DEFAULT_MAP,
    show_default=True,
    metavar="FILE",
    help="The VM map.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
