"""How moments stand in our answers."""

from datetime import datetime


def iso(moment: datetime | None) -> str:
    """ISO 8601 with the server's offset; empty for none."""
    return moment.astimezone().isoformat(timespec="seconds") if moment else ""
