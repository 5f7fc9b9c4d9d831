"""A grant in words: for whom, when, where, and with which limits."""

from datetime import date

from spicetunnel.policy.models import ALL_CHANNELS, NO_DEVICES, VIEW_ONLY
from spicetunnel.policy.schedule import EVERY_DAY, Window
from spicetunnel.policy.vmmap import Grant

_WAYS = ("user", "group", "uid", "gid", "people")
_WHOLE_DAY = "00:00-24:00"


def who(grant: Grant) -> str:
    """For whom: `user anne, maggie`, `group staff`, `everyone`."""
    for way in _WAYS:
        if names := getattr(grant, way):
            return f"{way} {', '.join(map(str, names))}"
    return "everyone"


def place(grant: Grant) -> str:
    """From where: `at the console from 192.0.2.0/24`; empty for anywhere."""
    words = ["at the console"] if grant.where == "console" else []
    if grant.from_:
        words.append(f"from {', '.join(map(str, grant.from_))}")
    return " ".join(words)


def terms(grant: Grant) -> str:
    """All of a grant but for whom. Two grants that differ in effect differ in these words."""
    words = [_windows(grant.when), *_dates(grant), place(grant)]
    words.append(_how_much(grant))
    if grant.take_over:
        words.append("with take-over")
    return " ".join(word for word in words if word)


def _how_much(grant: Grant) -> str:
    word, whole = "", ALL_CHANNELS
    if grant.view_only:
        word, whole = "view-only", VIEW_ONLY
    elif grant.no_devices:
        word, whole = "no-devices", NO_DEVICES
    allowed = grant.allowed
    if allowed is None:
        return ""
    if missing := whole - allowed:
        return f"{word} without {', '.join(sorted(missing))}".lstrip()
    return word or f"only {', '.join(sorted(allowed))}"


def _windows(windows: tuple[Window, ...]) -> str:
    in_order = sorted(set(windows), key=lambda each: (sorted(each.days), each.start, each.end))
    return ", ".join(map(_window, in_order))


def _window(window: Window) -> str:
    text = str(window)
    if text == _WHOLE_DAY and window.days == EVERY_DAY:
        return "any time"
    return text.removesuffix(f" {_WHOLE_DAY}")


def _dates(grant: Grant) -> list[str]:
    words = []
    if grant.starts != date.min:
        words.append(f"starting {grant.starts}")
    if grant.ends != date.max:
        words.append(f"ending {grant.ends}")
    if grant.except_:
        words.append(f"except {', '.join(_range(*each) for each in sorted(grant.except_))}")
    return words


def _range(first: date, last: date) -> str:
    return str(first) if first == last else f"{first}..{last}"
