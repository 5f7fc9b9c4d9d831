"""What the man pages say of options is what the programs know."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from spice_connect import cli, config

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
