"""Names that cross the privilege boundary, and the one pattern each must match."""

import re

#: A VM's name: starts with a letter or digit, so it can never look like an option;
#: no slash, so it can never be a path. At most 64 characters.
VM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

#: A person's name as a shared account's key or certificate gives it, in the gate's `--as`: nothing
#: that a shell, sshd's configuration or a log could misread.
PERSON_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")

#: A session's id, as the broker draws it.
SESSION_ID = re.compile(r"[0-9a-f]{8}")


def is_vm_name(text: str) -> bool:
    return VM_NAME.fullmatch(text) is not None


def is_person_name(text: str) -> bool:
    return PERSON_NAME.fullmatch(text) is not None


def is_session_id(text: str) -> bool:
    return SESSION_ID.fullmatch(text) is not None
