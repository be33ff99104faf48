"""The contracts as documents: JSON Schema for programs, AsyncAPI for tools, Markdown for people.

Owns nothing: everything is derived from the contracts and their examples. Promises that a document never says
anything else than the models do.
"""

import json
from collections.abc import Iterator
from typing import Any

from contracts.confirmation import EXCHANGE as CONFIRMATIONS
from contracts.confirmation import REASONS, PersistenceConfirmed
from contracts.envelope import CONTENT_TYPE, CONTENT_TYPE_BATCH, Envelope, EventData
from contracts.example_files import valid_examples
from contracts.registry import ContractFamily, families

MESSAGES = "agent.messages"
_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_IN_ASYNCAPI = "#/components/schemas/{model}"
_LONG_LIST = 20
Schema = dict[str, Any]


def json_schemas() -> dict[str, Schema]:
    """Event type to the JSON Schema of a whole event of that type."""
    return {contract.event_type: json_schema(contract) for contract in _contracts()}


def json_schema(contract: type[EventData]) -> Schema:
    """The JSON Schema of a whole event: the envelope with the contract as its `data`."""
    event, defs = _event_schema(contract, "#/$defs/{model}")
    return {"$schema": _DRAFT, "$id": f"urn:{contract.event_type}", **event, "$defs": defs}


def asyncapi(version: str) -> Schema:
    """An AsyncAPI 3 document of the worker: what it receives, what it sends, and what it replies."""
    document: Schema = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "agent-persistence",
            "version": version,
            "description": "Events that agents publish, and confirmations that their writes are in the database. "
            f"Many events of one family may travel as one message, a JSON array of content type {CONTENT_TYPE_BATCH}.",
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": {},
        "operations": {},
        "components": {"messages": {}, "schemas": {}},
    }
    for contract in _contracts():
        _add_message(document, contract)
    for family in families().values():
        for contract in family.contracts:
            _add_received(document, family, contract)
    _add_confirmations(document)
    return document


def markdown() -> str:
    """Every contract for readers: what it tells, its members, and an example."""
    return "\n".join(_lines()).rstrip() + "\n"


def _contracts() -> list[type[EventData]]:
    received = [contract for family in families().values() for contract in family.contracts]
    return [*received, PersistenceConfirmed]


def _event_schema(contract: type[EventData], ref: str) -> tuple[Schema, Schema]:
    """The schema of an event, and the schemas that it refers to."""
    event = _tidy(Envelope.model_json_schema(ref_template=ref))
    data = _tidy(contract.model_json_schema(ref_template=ref))
    defs = data.pop("$defs", {})
    event["title"] = contract.event_type
    event["description"] = data["description"]
    event["properties"]["type"] = {"const": contract.event_type}
    event["properties"]["data"] = data
    return event, defs


def _tidy(schema: Schema) -> Schema:
    """Pydantic's schema without made-up titles and null defaults; what may be absent may be null, as on the wire."""
    for definition in [schema, *schema.get("$defs", {}).values()]:
        definition.pop("title", None)
        for name, member in definition.get("properties", {}).items():
            member.pop("title", None)
            if member.get("default", ...) is None:
                del member["default"]
            if name not in definition.get("required", ()):
                definition["properties"][name] = _nullable(member)
    return schema


def _nullable(member: Schema) -> Schema:
    about: Schema = {key: member[key] for key in ("description", "default") if key in member}
    shape = {key: value for key, value in member.items() if key not in about}
    if not shape or "anyOf" in shape:  # any JSON value, or null already
        return member
    return {"anyOf": [shape, {"type": "null"}], **about}


def _add_message(document: Schema, contract: type[EventData]) -> None:
    payload, defs = _event_schema(contract, _IN_ASYNCAPI)
    components = document["components"]
    components["schemas"].update(defs)
    components["schemas"][contract.event_type] = payload
    components["messages"][contract.event_type] = {
        "name": contract.event_type,
        "title": contract.event_type,
        "summary": payload["description"].partition("\n")[0],
        "contentType": CONTENT_TYPE,
        "payload": {"$ref": f"#/components/schemas/{contract.event_type}"},
        "examples": [
            {"name": example.name, "payload": example.event}
            for example in valid_examples(contract.event_type)
        ],
    }


def _add_received(document: Schema, family: ContractFamily, contract: type[EventData]) -> None:
    name = contract.event_type
    document["channels"][name] = {
        "address": name,
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "bindings": {"amqp": _exchange(MESSAGES)},
    }
    document["operations"][f"store.{name}"] = {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{name}"},
        "summary": f"Taken from the queue worker.{family.name}.",
        "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
        "bindings": {"amqp": {"deliveryMode": 2, "ack": True, "bindingVersion": "0.3.0"}},
        "reply": {
            "address": {
                "location": "$message.header#/reply_to",
                "description": "The AMQP property reply_to, if set; correlation_id comes back.",
            },
            "channel": {"$ref": "#/channels/replies"},
        },
    }


def _add_confirmations(document: Schema) -> None:
    name = PersistenceConfirmed.event_type
    messages = {name: {"$ref": f"#/components/messages/{name}"}}
    document["channels"]["confirmations"] = {
        "address": "{family}.{outcome}.{tenant}",
        "parameters": {
            "family": {"enum": list(families())},
            "outcome": {"enum": ["persisted", "duplicate", "rejected"]},
            "tenant": {"description": "The tenant; default where it could not be read."},
        },
        "messages": messages,
        "bindings": {"amqp": _exchange(CONFIRMATIONS)},
    }
    document["channels"]["replies"] = {"address": None, "messages": messages}
    document["operations"]["confirm"] = {
        "action": "send",
        "channel": {"$ref": "#/channels/confirmations"},
        "messages": [{"$ref": f"#/channels/confirmations/messages/{name}"}],
    }


def _exchange(name: str) -> Schema:
    exchange = {"name": name, "type": "topic", "durable": True, "autoDelete": False}
    return {"is": "routingKey", "exchange": exchange, "bindingVersion": "0.3.0"}


def _lines() -> Iterator[str]:
    yield "# Contracts"
    yield ""
    yield "<!-- Made from contracts/ by `worker contracts export --format markdown > docs/contracts.md`: do not edit. -->"
    yield ""
    yield "Every message is a CloudEvents 1.0 event in JSON; its `data` is what the contract of its `type` says."
    yield "A member that may be absent may also be null: both mean the same."
    yield "Members that a contract does not name are refused; whole numbers are written without a fraction."
    yield ""
    yield "## The envelope"
    yield ""
    yield from _table(_tidy(Envelope.model_json_schema()))
    for family in families().values():
        yield f"## Family `{family.name}`"
        yield ""
        keys = ", ".join(f"`{key}`" for key in family.routing_keys)
        yield f"Queue `worker.{family.name}`, routing keys {keys}."
        yield ""
        for contract in family.contracts:
            yield from _contract_lines(contract)
    yield "## Confirmations"
    yield ""
    yield f"Sent to the exchange `{CONFIRMATIONS}` with the routing key `<family>.<outcome>.<tenant>`, and to `reply_to`."
    yield ""
    yield from _contract_lines(PersistenceConfirmed)
    yield "| reason of a rejection | meaning |"
    yield "| --- | --- |"
    for reason, meaning in REASONS.items():
        yield f"| `{reason}` | {meaning} |"


def _contract_lines(contract: type[EventData]) -> Iterator[str]:
    schema = _tidy(contract.model_json_schema())
    yield f"### {contract.event_type}"
    yield ""
    yield schema["description"]
    yield ""
    yield from _table(schema)
    for name, definition in schema.get("$defs", {}).items():
        yield f"`{name}`: {definition['description']}"
        yield ""
        yield from _table(definition)
    example = next(e for e in valid_examples(contract.event_type) if e.name == "valid-full")
    yield "```json"
    yield json.dumps(_shortened(example.event), indent=2, ensure_ascii=False)
    yield "```"
    yield ""


def _shortened(value: Any) -> Any:
    """An example as people want to read it: of a long list of numbers, such as an embedding, its beginning."""
    match value:
        case dict():
            return {name: _shortened(item) for name, item in value.items()}
        case [float(), *_] if len(value) > _LONG_LIST:
            return [*value[:3], f"… {len(value) - 3:,} more"]
        case _:
            return value


def _table(schema: Schema) -> Iterator[str]:
    yield "| member | type | required | limits | meaning |"
    yield "| --- | --- | --- | --- | --- |"
    for name, member in schema["properties"].items():
        shape = _shape(member)
        required = "yes" if name in schema.get("required", ()) else "no"
        limits = _limits(shape, member.get("default", ...)).replace("|", "\\|")
        yield f"| `{name}` | {_type(shape)} | {required} | {limits} | {member.get('description', '')} |"
    yield ""


def _shape(member: Schema) -> Schema:
    """A member's schema without the null that stands for absence."""
    shapes = [s for s in member.get("anyOf", [member]) if s.get("type") != "null"]
    return shapes[0] if len(shapes) == 1 else member


def _type(shape: Schema) -> str:
    if "$ref" in shape:
        return f"`{shape['$ref'].rpartition('/')[2]}`"
    if "anyOf" in shape:
        return " or ".join(_type(each) for each in shape["anyOf"])
    if shape.get("type") == "array":
        return f"list of {_type(shape['items'])}"
    formats = {"uuid": "UUID", "date-time": "time"}
    return formats.get(shape.get("format", ""), str(shape.get("type", "any JSON")))


def _limits(shape: Schema, default: Any) -> str:
    parts = []
    if choices := shape.get("enum") or ([shape["const"]] if "const" in shape else None):
        parts.append(", ".join(f"`{choice}`" for choice in choices))
    for low, high, noun in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " entries"),
    ):
        parts += _range(shape, low, high, noun)
    if "pattern" in shape:
        parts.append(f"`{shape['pattern']}`")
    if default is not ...:
        parts.append(f"default {json.dumps(default)}")
    return "; ".join(parts)


def _range(shape: Schema, low: str, high: str, noun: str) -> list[str]:
    least, most = shape.get(low), shape.get(high)
    if noun and least == 1:
        return ["not empty"] if most is None else [f"1 to {most}{noun}"]
    if least is not None and most is not None:
        return [f"{least} to {most}{noun}"]
    words = [f"at least {least}{noun}"] if least is not None else []
    words += (
        [f"above {shape['exclusiveMinimum']}"] if not noun and "exclusiveMinimum" in shape else []
    )
    words += [f"at most {most}{noun}"] if most is not None else []
    words += (
        [f"below {shape['exclusiveMaximum']}"] if not noun and "exclusiveMaximum" in shape else []
    )
    return words
