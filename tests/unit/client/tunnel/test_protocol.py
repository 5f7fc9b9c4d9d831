import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spice_connect.errors import ProtocolError
from spice_connect.tunnel import protocol


def parse(**message: object) -> protocol.Event | None:
    return protocol.parse(json.dumps(message).encode())


def test_every_event() -> None:
    assert parse(event="ready", session="0123abcd", title="T") == protocol.Ready("T", "0123abcd")
    assert parse(event="ready", tunnel="/run/t.sock") == protocol.Ready("", tunnel="/run/t.sock")
    assert parse(event="attached") == protocol.Attached()
    assert parse(event="waiting", reason="r", hint="h") == protocol.Waiting("r", "h")
    assert parse(event="notice", reason="r", hint="h") == protocol.Notice("r", "h")
    assert parse(event="refused", code=77, reason="r", hint="h") == protocol.Final("r", "h", 77)
    assert parse(event="end", code=69, reason="r", hint="") == protocol.Final("r", "", 69)
    times = {"until": "", "next": ""}
    vm = {"name": "vm1", "title": "T", "state": "free", "busy_by": "", **times}
    assert parse(event="vms", vms=[vm]) == protocol.Vms([vm])


def test_missing_texts_are_empty_and_unknown_keys_are_kept_for_scripts() -> None:
    assert parse(event="ready") == protocol.Ready("")
    vms = parse(event="vms", vms=[{"name": "vm1", "new": 5}])
    bare = dict.fromkeys(("title", "state", "busy_by", "until", "next"), "")
    whole = {"name": "vm1", **bare, "new": 5}
    assert vms == protocol.Vms([whole])


@pytest.mark.parametrize("event", ["", "new", 5, None, [], {}])
def test_unknown_events_are_ignored(event: object) -> None:
    assert parse(event=event) is None


@pytest.mark.parametrize(
    "line",
    [b"", b"Welcome!", b"\xff\xfe{", b"5", b"[]", b"null", b'"ready"', b"{}", b'{"vm": 1}',
     b'{"event": "ready"', b"[" * 60000, b"9" * 5000],
)  # fmt: skip
def test_lines_that_are_not_events_are_noise(line: bytes) -> None:
    assert isinstance(protocol.parse(line), protocol.Noise)


@pytest.mark.parametrize(
    "message",
    [
        {"event": "ready", "title": 5},
        {"event": "ready", "tunnel": 5},
        {"event": "ready", "tunnel": "run/t.sock"},
        {"event": "ready", "session": "0123abc"},
        {"event": "ready", "session": "0123abcd\n"},
        {"event": "ready", "session": "--wait"},
        {"event": "waiting", "reason": 5},
        {"event": "notice", "reason": None},
        {"event": "refused", "reason": "r", "hint": ""},
        {"event": "refused", "code": "77"},
        {"event": "refused", "code": True},
        {"event": "refused", "code": 0},
        {"event": "refused", "code": 126},
        {"event": "end", "code": -1},
        {"event": "end", "code": 69.0},
        {"event": "vms"},
        {"event": "vms", "vms": {}},
        {"event": "vms", "vms": ["vm1"]},
        {"event": "vms", "vms": [{"name": 5}]},
    ],
)
def test_a_known_event_with_wrong_types_is_an_error(message: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        parse(**message)


@given(st.lists(st.binary().map(lambda line: line.replace(b"\n", b"")), min_size=1), st.data())
def test_lines_come_out_whole_however_they_arrive(lines: list[bytes], data: st.DataObject) -> None:
    stream, cutter, heard = b"".join(line + b"\n" for line in lines), protocol.Lines(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        heard += cutter.feed(stream[:size])
        stream = stream[size:]
    assert heard == lines


def test_an_endless_line_takes_no_memory_and_the_next_one_is_read() -> None:
    cutter = protocol.Lines()
    for _ in range(64):
        assert cutter.feed(b" " * 65536) == []
    assert len(cutter._open) <= protocol.MAX_LINE + 1
    too_long, good = cutter.feed(b'{"event":"ready"}\n{"event":"ready"}\n')
    assert isinstance(protocol.parse(too_long), protocol.Noise)
    assert protocol.parse(good) == protocol.Ready("")


def test_a_line_over_the_limit_is_noise_even_if_it_arrives_at_once() -> None:
    (line,) = protocol.Lines().feed(b'{"event":"ready"}' + b" " * protocol.MAX_LINE + b"\n")
    assert isinstance(protocol.parse(line), protocol.Noise)


@given(st.binary())
def test_any_bytes_can_be_parsed(line: bytes) -> None:
    protocol.parse(line)


@pytest.mark.parametrize(
    "foreign", ["\x1b]0;server\x07", "Welcome! ", '{"event":"rea', "[1, 2", '{"event": "new"} ']
)
def test_an_event_behind_foreign_bytes_on_its_line_is_found(foreign: str) -> None:
    """A start-up file that writes no newline, and an old gate."""
    line = foreign + json.dumps({"event": "notice", "reason": 'say "{\\"event\\":"', "hint": "h"})
    notice = protocol.parse(line.encode())
    assert notice == protocol.Notice('say "{\\"event\\":"', "h")


def test_an_event_within_a_text_is_none() -> None:
    text = json.dumps({"event": "refused", "code": 77, "reason": "", "hint": ""})
    assert parse(event="notice", reason=text, hint="") == protocol.Notice(text, "")
    assert isinstance(protocol.parse(f"see {json.dumps(text)}".encode()), protocol.Noise)
