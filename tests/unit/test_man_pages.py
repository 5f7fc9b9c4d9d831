"""What the man pages say of options is what the programs know, and of the map what map.md says."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from spice_connect import cli, config

from tests import manpage

MAN = Path(__file__).parents[2] / "docs" / "man"


@pytest.mark.parametrize("daemon", ["spicetunnel.broker", "spicetunnel.relay"])
def test_daemons_page_names_every_option_and_no_other(daemon: str) -> None:
    argv = [sys.executable, "-m", daemon, "--help"]
    usage = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    known = set(re.findall(r"^  (--[a-z-]+)", usage, re.MULTILINE)) - {"--version"}
    name = {"spicetunnel.broker": "spicetunneld.8", "spicetunnel.relay": "spicetunnel-relay.8"}
    page = (MAN / name[daemon]).read_text().replace("\\-", "-")
    assert set(re.findall(r"^\.BI (--[a-z-]+)", page, re.MULTILINE)) == known
    assert set(re.findall(r"^\.RB \[ (--[a-z-]+)", page, re.MULTILINE)) == known


def section(page: str, name: str) -> str:
    text = (MAN / page).read_text().replace("\\-", "-")
    return text.partition(f".SH {name}\n")[2].partition("\n.SH ")[0]


def test_client_page_names_every_option_and_no_other() -> None:
    options = [each for each in cli.command.params if isinstance(each, click.Option)]
    known = {name for each in options for name in each.opts} | {"-h", "--help"}
    terms = re.findall(r"^\.TP\n(.*)", section("spice-connect.1", "OPTIONS"), re.MULTILINE)
    assert {word for term in terms for word in re.findall(r"(?<!\S)--?[a-z-]+", term)} == known


def test_client_page_shows_a_value_where_there_is_one() -> None:
    options = [each for each in cli.command.params if isinstance(each, click.Option)]
    taking = {name for each in options if not (each.is_flag or each.count) for name in each.opts}
    shown = section("spice-connect.1", "OPTIONS")
    assert set(re.findall(r'^\.BI (--[a-z-]+) " ', shown, re.MULTILINE)) == taking


def test_client_page_names_every_key_and_hot_key() -> None:
    text = section("spice-connect.1", "CONFIGURATION")
    assert set(re.findall(r'^\.BI ([a-z-]+) " =', text, re.MULTILINE)) == set(config._KEYS)
    assert [action for action in config.HOT_KEYS if action not in text] == []


def test_client_page_has_the_exit_codes_of_the_help() -> None:
    codes = re.findall(r"^  (\d+ .*)", cli.EPILOG, re.MULTILINE)
    assert len(codes) > 5
    page = section("spice-connect.1", "EXIT STATUS")
    assert re.findall(r"^(\d+ .*)", page, re.MULTILINE) == codes


def test_map_page_is_what_map_md_makes_it() -> None:
    made = manpage.PAGE.read_text()
    wanted = manpage.page(manpage.SOURCE.read_text(), manpage.date_of(made))
    assert made == wanted, "run script/man"


def test_map_page_has_every_key_and_example_of_map_md() -> None:
    markdown, roff = manpage.SOURCE.read_text(), manpage.PAGE.read_text()
    keys = re.findall(r"^\| `([a-z-]+)` \|", markdown, re.MULTILINE)
    tags = re.findall(r"^\.TP\n\.B ([a-z-]+)$", roff.replace("\\-", "-"), re.MULTILINE)
    assert len(keys) > 20
    assert tags == keys
    examples = re.findall(r"^```\w*\n.*?^```$", markdown, re.MULTILINE | re.DOTALL)
    assert roff.count("\n.EX\n") == len(examples) > 10


@pytest.mark.parametrize(
    ("markdown", "roff"),
    [
        ("# The map", ""),
        ("## A grant", ".SH A GRANT\n"),
        ("### Who", ".SS Who\n"),
        ("### Who\n\nExactly one.", ".SS Who\nExactly one.\n"),
        ("one\ntwo\n\nthree", ".PP\none\ntwo\n.PP\nthree\n"),
        ("`a-b` and a-b", ".PP\n\\fBa\\-b\\fR and a-b\n"),
        ("**`from` holds** *here*", ".PP\n\\fB\\fBfrom\\fB holds\\fR \\fIhere\\fR\n"),
        ("a\\\\b, 'c'", ".PP\na\\eb, \\(aqc\\(aq\n"),
        (".so /etc/shadow", ".PP\n\\&.so /etc/shadow\n"),
        ("```\n.so x\n\\-y\n```", ".PP\n.RS 4\n.EX\n\\&.so x\n\\e\\-y\n.EE\n.RE\n"),
        ("|key|value||\n|-|-|-|\n|`a-b`|a date|the first|", ".TP\n.B a\\-b\nA date: the first.\n"),
        ("|key|value||\n|-|-|-|\n|`a`|`true`||", ".TP\n.B a\n\\fBtrue\\fR.\n"),
        ("|keys of `a`|b||\n|-|-|-|\n|`c`|d|e.|", ".PP\nKeys of \\fBa\\fR:\n.TP\n.B c\nD: e.\n"),
    ],
)
def test_markdown_as_roff(markdown: str, roff: str) -> None:
    page = manpage.page(f"## X\n\n.\n\n{markdown}", "2026-11-25")
    assert page.partition("\n.SH X\n\\&.\n")[2].partition(".SH FILES\n")[0] == roff


def test_unknown_markdown_is_refused() -> None:
    with pytest.raises(KeyError):
        manpage.page("- a list", "2026-11-25")


def test_every_page_is_installed() -> None:
    project = tomllib.loads((MAN.parents[1] / "pyproject.toml").read_text())
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    pages = [page.name for page in MAN.iterdir()]
    assert shared == {f"docs/man/{p}": f"share/man/man{p[-1]}/{p}" for p in pages}
