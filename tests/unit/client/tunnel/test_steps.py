"""Which channel was refused, by the lines of OpenSSH 9.2; the real ones are in tests/system."""

import pytest
from spice_connect.tunnel.steps import Steps

FAR = "/run/spicetunnel/tunnel.sock"
REFUSED = "channel {}: open failed: connect failed: open failed"


def forwarding(far: str, number: int, port: str = "-2") -> list[str]:
    return [
        f"Connection to port {port} forwarding to {far} port -2 requested.",
        f"channel {number}: new [direct-streamlocal@openssh.com]",
    ]


def heard(*messages: str) -> Steps:
    steps = Steps(FAR)
    for message in messages:
        steps.hear(message)
    return steps


@pytest.mark.parametrize("port", ["-2", "5930"])
def test_a_channel_of_our_forwarding(port: str) -> None:
    steps = heard(*forwarding(FAR, 3, port), REFUSED.format(3))
    assert (steps.refusals, steps.may_be_refused) == (1, False)


def test_a_channel_of_another_forwarding() -> None:
    steps = heard(*forwarding("/run/other", 3), REFUSED.format(3))
    assert (steps.refusals, steps.may_be_refused) == (0, False)


def test_a_number_is_given_away_again() -> None:
    steps = heard(*forwarding(FAR, 3), *forwarding("/run/other", 3), REFUSED.format(3))
    assert steps.refusals == 0


def test_a_channel_that_is_no_forwarding() -> None:
    """The session itself, which is the first channel."""
    steps = heard("channel 0: new [client-session]", *forwarding(FAR, 1), REFUSED.format(0))
    assert steps.refusals == 0


def test_an_ssh_that_does_not_tell_whose_channel_it_is() -> None:
    steps = heard(REFUSED.format(3))
    assert (steps.refusals, steps.may_be_refused) == (0, True)


def test_the_built_in_ssh_has_no_other_forwarding() -> None:
    assert heard("cause: forwarding-refused").refusals == 1


def test_the_login_and_the_way() -> None:
    steps = heard("Executing proxy command: exec nc kvm 22", "Authenticated to kvm (via proxy).")
    assert (steps.is_logged_in, steps.way) == (True, "exec nc kvm 22")
    assert not heard("not Authenticated to kvm").is_logged_in
