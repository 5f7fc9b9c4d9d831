"""`spicetunnel schema`: the map's JSON schema, for editors that complete and check the map."""

import json

import click
from pydantic.json_schema import GenerateJsonSchema

from spicetunnel.admin.terminal import say
from spicetunnel.policy.vmmap import VmMap


@click.command()
def schema() -> None:
    """Print the JSON schema of the map.

    An editor with the YAML language server completes and checks the map if this is the map's
    first line:

    \b
    # yaml-language-server: $schema=/etc/spicetunnel/vms.schema.json
    """  # noqa: D301 - click's mark for lines to be left as they are
    say(json.dumps(map_schema(), indent=2))


def map_schema() -> dict[str, object]:
    body = VmMap.model_json_schema(by_alias=True)
    head = {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": "urn:spicetunnel:vms",
        "title": "spicetunnel's VM map",
        "description": "Which VMs there are, and who may use them, when, from where, and how.",
    }
    return {**body, **head}
