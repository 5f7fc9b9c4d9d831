"""`spicetunnel schema`: what an editor needs to complete and check a map."""

import json
import warnings
from typing import Any

import pytest

from spicetunnel.admin.cli import run
from spicetunnel.policy.vmmap import Grant, Vm, VmMap

Output = pytest.CaptureFixture[str]


@pytest.fixture
def schema(capsys: Output) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(["schema"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_it_says_what_it_is(schema: dict[str, Any]) -> None:
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == "urn:spicetunnel:vms"
    assert schema["title"] == "spicetunnel's VM map"
    assert schema["description"].startswith("Which VMs there are")


def test_every_key_as_it_is_written(schema: dict[str, Any]) -> None:
    written = {"take-over", "view-only", "no-devices", "from", "except", "when", "where"}
    assert written <= set(schema["$defs"]["Grant"]["properties"])
    for model, properties in (
        (VmMap, schema["properties"]),
        (Vm, schema["$defs"]["Vm"]["properties"]),
        (Grant, schema["$defs"]["Grant"]["properties"]),
    ):
        assert set(properties) == {field.alias for field in model.model_fields.values()}


def test_unknown_keys_are_wrong(schema: dict[str, Any]) -> None:
    assert schema["additionalProperties"] is False
    assert all(each["additionalProperties"] is False for each in schema["$defs"].values())


def test_required_keys(schema: dict[str, Any]) -> None:
    assert schema["$defs"]["Vm"]["required"] == ["socket"]
    assert "required" not in schema["$defs"]["Grant"]


def test_nothing_of_python_in_it(schema: dict[str, Any]) -> None:
    assert '"default"' not in json.dumps(schema)
    assert '"Take-Over"' not in json.dumps(schema)


def test_help_shows_the_line_for_editors(capsys: Output) -> None:
    assert run(["schema", "-h"]) == 0
    line = "# yaml-language-server: $schema=/etc/spicetunnel/vms.schema.json\n"
    assert line in capsys.readouterr().out
