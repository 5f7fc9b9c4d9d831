"""What is offered for a VM."""

from typing import Any

import pytest
from spice_connect.vms.row import Offer, row_of

BARE = {"name": "vm1", "host": "kvm", "title": "", "busy_by": "", "until": "", "next": ""}


@pytest.mark.parametrize(
    ("vm", "offer"),
    [
        ({"state": "free"}, None),
        ({"state": "shared", "busy_by": "anne"}, None),
        ({"state": "off"}, Offer("'vm1' is off", wait=True)),
        ({"state": "busy", "busy_by": "anne", "take_over": False},
         Offer("'vm1' is busy: anne", wait=True)),
        ({"state": "busy", "busy_by": "anne"},
         Offer("'vm1' is busy: anne", wait=True, take_over=True)),
        ({"state": "closed", "next": "2099-01-05T09:00:00+00:00", "busy_by": "anne"}, ...),
        ({"state": "closed"}, Offer("'vm1' is closed")),
        ({"state": "unreachable"}, Offer("the server cannot reach 'vm1': its admin knows")),
        ({"state": "of tomorrow"}, None),
    ],
)  # fmt: skip
def test_offers(vm: dict[str, Any], offer: Any) -> None:
    row = row_of(BARE | vm)
    if offer is ...:
        assert row.offer() == Offer(f"'vm1' {row.state}", wait=True)
        assert row.state.startswith("opens 2099-01-05 ")
        return
    assert row.offer() == offer


def test_limits_are_part_of_the_state() -> None:
    limits = ["view-only", "no \x1b[31musbredir"]
    assert row_of(BARE | {"state": "free", "limits": limits}).state == (
        "free, view-only, no ?[31musbredir"
    )
