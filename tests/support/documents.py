"""The documents as tests read them: fenced blocks, commands, tables, links."""

import ast
import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
OPERATIONS = ROOT / "docs" / "operations.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
_FENCE = re.compile(r"^([ ]*)```([\w-]*)\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)
_SHELLS = ("sh", "shell", "bash", "console")


def documents() -> list[Path]:
    """Every document that there is."""
    found = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [path for path in found if path.exists()]


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is that of its first line."""

    document: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """The fenced blocks in these languages, in every document."""
    return [block for path in documents() for block in blocks_of(path, *languages)]


def blocks_of(path: Path, *languages: str) -> Iterator[Block]:
    text = path.read_text()
    name = str(path.relative_to(ROOT))
    for found in _FENCE.finditer(text):
        _, language, content = found.groups()
        if language in languages:
            line = text.count("\n", 0, found.start()) + 2
            yield Block(name, line, language, textwrap.dedent(content))


@dataclass(frozen=True)
class Command:
    """A command of a document, with the first place where it stands."""

    text: str
    place: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)


def commands() -> list[Command]:
    """Every distinct command in a shell block."""
    found: dict[str, Command] = {}
    for block in blocks(*_SHELLS):
        for line, text in _lines(block):
            found.setdefault(text, Command(text, f"{block.document}:{line}"))
    return list(found.values())


def _lines(block: Block) -> Iterator[tuple[int, str]]:
    """The commands of a block: in `console` what follows a prompt, else every line; continued lines are joined."""
    begun, start = "", block.line
    for line, raw in enumerate(block.text.splitlines(), block.line):
        text = raw.strip()
        if block.language == "console" and not begun:
            if not text.startswith("$ "):
                continue
            text = text[2:]
        start = start if begun else line
        begun += text.removesuffix("\\")
        if text.endswith("\\"):
            continue
        if begun and not begun.startswith("#"):
            yield start, begun
        begun = ""


def prose(path: Path) -> str:
    """A document without its fenced blocks."""
    return _FENCE.sub("", path.read_text())


def inline_code(path: Path) -> list[str]:
    """What stands in backticks outside blocks."""
    return re.findall(r"`([^`\n]+)`", prose(path))


def table(path: Path, first_header: str) -> list[list[str]]:
    """The rows of the first table whose first column has this header, cells stripped."""
    lines = iter(prose(path).splitlines())
    for line in lines:
        if _cells(line)[:1] == [first_header]:
            next(lines)
            rows = []
            for row in lines:
                if not row.startswith("|"):
                    break
                rows.append(_cells(row))
            return rows
    raise AssertionError(f"{path.name} has no table that begins with {first_header!r}")


def _cells(line: str) -> list[str]:
    if not line.startswith("|"):
        return []
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def slugs(path: Path) -> set[str]:
    """The anchors of a document's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(path: Path) -> list[str]:
    """The targets of a document's links."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(path))


def new_family_files() -> dict[str, str]:
    """The example of a new family, as its test writes it: CONTRACT, TABLES, MIGRATION."""
    source = (ROOT / "tests" / "acceptance" / "test_new_family.py").read_text()
    return {
        node.targets[0].id: node.value.value.strip()
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }
