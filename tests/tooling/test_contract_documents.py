"""The documents say what the models do."""

import re
from functools import cache
from pathlib import Path

import pytest

from contracts.example_files import examples, valid_examples
from contracts.registry import contract_types, families
from worker import contract_documents

DOCUMENT = Path(__file__).parents[2] / "docs" / "contracts.md"

KINDS = {
    "string": str,
    "object": dict,
    "array": list,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}
KNOWN = {
    *("$schema", "$id", "$defs", "$ref", "title", "description", "default", "format"),
    *("type", "enum", "const", "anyOf", "properties", "required", "additionalProperties"),
    *("items", "maxItems", "minItems", "pattern", "minLength", "maxLength"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}


schemas = cache(contract_documents.json_schemas)
asyncapi = cache(contract_documents.asyncapi)
markdown = cache(contract_documents.markdown)


def accepts(schema, value, root):
    """Whether a value fits a schema: the part of JSON Schema that the contracts use."""
    assert set(schema) <= KNOWN, f"the checker of this test does not know {set(schema) - KNOWN}"
    if "$ref" in schema:
        target = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return accepts(target, value, root)
    return (
        _fits_type(schema, value)
        and ("enum" not in schema or value in schema["enum"])
        and ("const" not in schema or value == schema["const"])
        and ("anyOf" not in schema or any(accepts(each, value, root) for each in schema["anyOf"]))
        and _fits_kind(schema, value, root)
    )


def _fits_type(schema, value):
    if "type" not in schema:
        return True
    if isinstance(value, bool):
        return schema["type"] == "boolean"
    return isinstance(value, KINDS[schema["type"]])


def _fits_kind(schema, value, root):
    match value:
        case str():
            return (
                schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
                and re.search(schema.get("pattern", ""), value) is not None
            )
        case bool():
            return True
        case int() | float():
            return (
                value >= schema.get("minimum", value)
                and value <= schema.get("maximum", value)
                and not value <= schema.get("exclusiveMinimum", float("-inf"))
                and not value >= schema.get("exclusiveMaximum", float("inf"))
            )
        case list():
            return (
                schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
            ) and all(accepts(schema.get("items", {}), item, root) for item in value)
        case dict():
            members = schema.get("properties", {})
            return (
                set(schema.get("required", ())) <= set(value)
                and (schema.get("additionalProperties", True) or set(value) <= set(members))
                and all(accepts(members.get(name, {}), item, root) for name, item in value.items())
            )
    return True


# What JSON Schema, or the checker above, cannot say: formats, decimals, two members compared.
NOT_IN_SCHEMA = {
    "uuid_parsing",
    "value_error",
    "decimal_max_places",
    "task_depends_on_itself",
    "branch_of_itself",
    "dag_cycle",
    "dag_edge_repeated",
    "dag_edge_to_itself",
    "dag_node_repeated",
    "dag_unknown_node",
}
IN_SCHEMA_ALL_THE_SAME = {"invalid-cost-as-text"}  # of such a kind, and yet in the schema


def said_in_schema(example):
    kinds = {kind for _, kind in example.errors}
    return example.valid or example.name in IN_SCHEMA_ALL_THE_SAME or not kinds <= NOT_IN_SCHEMA


@pytest.mark.parametrize("event_type", [*contract_types(), "persistence.confirmed"])
def test_a_schema_accepts_what_the_model_accepts(event_type):
    """A publisher that checks with the schema is told the same as one that checks with the model."""
    schema = schemas()[event_type]
    compared = [e for e in examples() if e.type == event_type and said_in_schema(e)]
    found = {example.name: accepts(schema, example.event, schema) for example in compared}
    assert found == {example.name: example.valid for example in compared}


def test_every_type_has_a_schema_of_its_own():
    """An exported schema is named after its type."""
    assert set(schemas()) == {*contract_types(), "persistence.confirmed"}
    for name, schema in schemas().items():
        assert schema["properties"]["type"] == {"const": name}
        assert schema["$id"] == f"urn:{name}"


def test_the_schema_of_a_member_that_may_be_absent_accepts_null():
    """On the wire, null and absent are the same."""
    for name in contract_types():
        schema = schemas()[name]
        data = schema["properties"]["data"]
        for member, shape in data["properties"].items():
            if member not in data.get("required", ()):
                assert accepts(shape, None, schema), member


def references(node):
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_asyncapi_is_whole():
    """Every reference leads somewhere, every type has its channel, operation and message."""
    document = asyncapi("1.2.3")
    assert document["asyncapi"] == "3.0.0"
    assert document["info"]["version"] == "1.2.3"
    assert set(document) <= {
        *("asyncapi", "info", "defaultContentType", "channels", "operations", "components")
    }
    for reference in references(document):
        target = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
    for family in families().values():
        for name in family.types:
            assert document["channels"][name]["address"] == name
            assert document["operations"][f"store.{name}"]["action"] == "receive"
            assert len(document["components"]["messages"][name]["examples"]) == len(
                valid_examples(name)
            )


def test_the_payloads_in_asyncapi_accept_their_examples():
    """The references inside AsyncAPI payloads are its own, not those of the single schemas."""
    document = asyncapi("1.2.3")
    for message in document["components"]["messages"].values():
        for example in message["examples"]:
            assert accepts(message["payload"], example["payload"], document)


def test_the_document_in_docs_is_current():
    """What people read is what the models do."""
    command = "worker contracts export --format markdown > docs/contracts.md"
    assert command in markdown()
    assert DOCUMENT.read_text(encoding="utf-8") == markdown(), f"run: {command}"


def test_the_document_names_every_type_and_member():
    """Nothing of a contract is missing from the document."""
    text = markdown()
    for name, (_, contract) in contract_types().items():
        section = text.split(f"### {name}\n")[1].split("\n### ")[0]
        for member in contract.model_fields:
            assert f"| `{member}` |" in section
