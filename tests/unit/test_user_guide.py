"""docs/user-guide.md and its pictures belong together; tests/system makes them and reads it."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_every_picture_is_there_and_is_shown() -> None:
    shown = re.findall(r"\]\(captures/(.*?)\)", (DOCS / "user-guide.md").read_text())
    assert sorted(shown) == sorted(path.name for path in (DOCS / "captures").iterdir())
