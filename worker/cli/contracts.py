"""`worker contracts`: the messages as documents, for publishers in any language."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from worker import contract_documents, data_model_document
from worker.cli import output
from worker.cli.version import version
from worker.errors import Misconfigured

group = typer.Typer(help="The messages' contracts as documents.", no_args_is_help=True)


class Format(StrEnum):
    """What a document is written in."""

    JSONSCHEMA = "jsonschema"
    ASYNCAPI = "asyncapi"
    MARKDOWN = "markdown"
    DATA_MODEL = "data-model"


def register(app: typer.Typer) -> None:
    """Add `worker contracts`."""
    app.add_typer(group, name="contracts")


@group.callback()
def _group() -> None:
    """The messages' contracts as documents."""


@group.command()
def export(
    format: Annotated[Format, typer.Option("--format", help="What to write.")],  # noqa: A002 (the option's name)
    path: Annotated[
        Path,
        typer.Option(
            "--output",
            help="A file; - is standard output. JSON Schema into a folder is one file a type.",
        ),
    ] = Path("-"),
) -> None:
    """Write JSON Schema (one object: type to schema), AsyncAPI 3, Markdown, or the tables (data-model, Markdown too)."""
    if format is Format.JSONSCHEMA and path.is_dir():
        for name, schema in contract_documents.json_schemas().items():
            _write(path / f"{name}.json", _dump(schema))
    else:
        _write(path, _document(format))


def _document(format: Format) -> str:  # noqa: A002 (as above)
    match format:
        case Format.JSONSCHEMA:
            return _dump(contract_documents.json_schemas())
        case Format.ASYNCAPI:
            return _dump(contract_documents.asyncapi(version()))
        case Format.MARKDOWN:
            return contract_documents.markdown()
        case Format.DATA_MODEL:
            return data_model_document.markdown()


def _dump(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _write(path: Path, text: str) -> None:
    if str(path) == "-":
        typer.echo(text, nl=False)
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"cannot write {path}: {error.strerror}") from error
    output.notes.print(f"wrote {path}", markup=False)
