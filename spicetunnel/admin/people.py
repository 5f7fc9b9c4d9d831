"""The person behind a name on the command line, found as the broker finds them."""

import os
from collections.abc import Iterable

from spicetunnel.common.errors import SpicetunnelError
from spicetunnel.common.names import is_person_name
from spicetunnel.policy.accounts import NO_UID, look_up, without_account
from spicetunnel.policy.decide import Identity
from spicetunnel.policy.problems import printable, quote
from spicetunnel.policy.vmmap import VmMap


class NoUserError(SpicetunnelError):
    """No person has that name."""

    exit_code = os.EX_NOUSER


def identify(name: str, vm_map: VmMap) -> Identity:
    """The person of that name. If the map has shared accounts, they need no account of their own.

    Raises NoUserError.
    """
    if account := look_up(name):
        return account.identity
    if vm_map.delegates and is_person_name(name):
        return without_account(name)
    hint = "'getent passwd NAME' asks the account database as this command does"
    raise NoUserError(f"no user {quote(name)} on this server", hint)


def shared_accounts(person: Identity, vm_map: VmMap) -> tuple[str, ...]:
    """The accounts that a person without one of their own comes through; empty for others."""
    return vm_map.delegates if person.uid == NO_UID else ()


def comes_through(shared_accounts: Iterable[str]) -> str:
    """How a person without an account of their own comes in, in words."""
    return f"comes through a shared account, {' or '.join(map(printable, shared_accounts))}"
