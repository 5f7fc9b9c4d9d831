"""Any value for any key gives a map or a list of problems, and no other exception."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spicetunnel.policy.models import Channels, Grant, Vm, VmMap
from spicetunnel.policy.problems import MapError
from spicetunnel.policy.vmmap import parse_map


def keys_of(model: type[Grant | Vm | VmMap | Channels]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


WORDS = ["ann", "true", "Mon", "2026-12-24", "2026-12-24..2026-12-23", "UTC", "Mars", "..", "1e9"]
WORDS += ["192.0.2.7/24", "::ffff:0:0/96", "fe80::1%eth0", "99999999999", "usbredir", "main", "\0"]
HOLE = "\ue000"  # in place of a missing value
texts = st.sampled_from(WORDS) | st.text(max_size=4) | st.just(HOLE)
values = st.recursive(
    texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=6,
)
VALUES = [HOLE, "", "ann", [], {}, [[]], [{}], [HOLE], {"a": HOLE}, {"ann": ["ann"]}, [["ann"]]]


def check(key: str, value: object) -> None:
    """Use the value for this key, at each place where a map has keys."""
    grant = {"user": "ann", key: value}
    channels = {"user": "ann", "channels": {key: value}}
    for content in (
        {key: value},
        {"vms": {"a": {"socket": "/a", key: value}}},
        {"vms": {"a": {"socket": "/a", "allow": [grant, channels, {key: value}]}}},
        {"people": {"p": [{key: value}]}, "vms": {}},
    ):
        text = json.dumps(content, ensure_ascii=False).replace(f'"{HOLE}"', "")
        try:
            parse_map(text.encode("utf-8", "surrogatepass"), "vms.yaml")
        except MapError as error:
            for problem in error.problems:
                assert problem.line == 1
                assert problem.message.isprintable()
                assert problem.hint.isprintable()
                assert len(problem.message) < 240


KEYS = sorted({*keys_of(VmMap), *keys_of(Vm), *keys_of(Grant), *keys_of(Channels)})


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", VALUES, ids=json.dumps)
def test_each_kind_of_value_for_each_key(key: str, value: object) -> None:
    check(key, value)


@given(st.sampled_from(KEYS), values)
@settings(max_examples=500, deadline=None)
def test_any_value_for_any_key(key: str, value: object) -> None:
    check(key, value)
