"""docs/map.md agrees with the code: every example is valid, every key is described.

The man page is made from it: see test_man_pages.
"""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from spicetunnel.policy.decide import Facts, Identity, decide
from spicetunnel.policy.fields import SIDE_CHANNELS
from spicetunnel.policy.models import VIEW_ONLY, Channels, Grant, Limits, MapPart, Vm, VmMap, Who
from spicetunnel.policy.vmmap import parse_map
from tests.unit.policy.test_decisions import instant

DOCS = Path(__file__).parents[3] / "docs"
REFERENCE = (DOCS / "map.md").read_text()
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", REFERENCE, re.MULTILINE | re.DOTALL)
MODELS = (VmMap, MapPart, Limits, Vm, Who, Grant, Channels)
KEYS = {field.alias or name for model in MODELS for name, field in model.model_fields.items()}


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_is_a_valid_map(text: str) -> None:
    parse_map(text.encode(), "example")


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 11


def test_the_reference_describes_every_key_and_no_other() -> None:
    assert set(re.findall(r"^\| `([a-z-]+)` \|", REFERENCE, re.MULTILINE)) == KEYS


@pytest.mark.parametrize("key", sorted(KEYS))
def test_every_key_is_in_an_example(key: str) -> None:
    here = re.compile(rf"(^|[ {{,-]){key}:", re.MULTILINE)
    assert any(here.search(text) for text in EXAMPLES)


def test_reference_says_what_the_main_channel_carries() -> None:
    assert "disable-copy-paste=on,disable-agent-file-xfer=on" in REFERENCE
    assert all(re.search(rf"\b{name}\b", REFERENCE) for name in SIDE_CHANNELS)


@pytest.mark.parametrize(
    ("example", "user", "vm", "moment", "until", "view_only"),
    [
        ("# looks on in the morning", "kim", "vm1", "Mon 11-23 09:00", "18:00", True),
        ("# looks on in the morning", "kim", "vm1", "Mon 11-23 13:00", "18:00", False),
        ("the branch office's", "kim", "new-york", "Mon 11-23 15:30", "23:00", False),
    ],
)
def test_examples_mean_what_the_reference_says(
    example: str, user: str, vm: str, moment: str, until: str, view_only: bool
) -> None:
    (text,) = (text for text in EXAMPLES if example in text)
    zone = "" if "timezone" in text else "timezone: Europe/Berlin\n"
    vm_map = parse_map(f"{zone}{text}".encode(), "m")
    now = instant(moment)
    decision = decide(vm_map, Identity(1000, user, frozenset()), vm, Facts(now))
    assert decision.until
    assert f"{decision.until.astimezone(now.tzinfo):%H:%M}" == until
    assert (decision.allowed == VIEW_ONLY) is view_only


@pytest.mark.parametrize(
    ("when", "minutes_of"),
    [
        # In spring: skipped; ends when the clocks change; the night is an hour shorter.
        ("Sun 02:10-02:50", {"2026-03-29": 0, "2026-10-25": 80}),
        ("Sun 01:00-02:30", {"2026-03-29": 60, "2026-10-25": 120}),
        ("Sat 22:00-06:00", {"2026-03-29": 7 * 60, "2026-10-25": 9 * 60}),
    ],
)
def test_clock_changes_are_as_the_reference_says(when: str, minutes_of: dict[str, int]) -> None:
    """Minutes open from the evening before until noon."""
    text = f"timezone: Europe/Berlin\nvms: {{a: {{socket: /a, allow: [{{uid: 1, when: {when}}}]}}}}"
    vm_map = parse_map(text.encode(), "m")
    for day, minutes in minutes_of.items():
        assert _minutes_open(vm_map, day) == minutes


def _minutes_open(vm_map: VmMap, day: str) -> int:
    noon = datetime.fromisoformat(f"{day}T11:00").replace(tzinfo=UTC)
    moments = (noon - timedelta(minutes=each) for each in range(1, 16 * 60))
    person = Identity(1, "ann", frozenset())
    return sum(decide(vm_map, person, "a", Facts(moment)).allow for moment in moments)
