"""What the man pages say of options is what the programs know."""

import re
import subprocess
import sys
from pathlib import Path

MAN = Path(__file__).parents[2] / "docs" / "man"


def test_broker_page_names_every_option_and_no_other() -> None:
    argv = [sys.executable, "-m", "spicetunnel.broker", "--help"]
    usage = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    known = set(re.findall(r"^  (--[a-z-]+)", usage, re.MULTILINE)) - {"--version"}
    page = (MAN / "spicetunneld.8").read_text().replace("\\-", "-")
    assert set(re.findall(r"^\.BI (--[a-z-]+)", page, re.MULTILINE)) == known
    assert set(re.findall(r"^\.RB \[ (--[a-z-]+)", page, re.MULTILINE)) == known
