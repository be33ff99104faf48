"""The mutation list as data, and applying one of its breakages to a tree of files."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIST = ROOT / "tests" / "mutants" / "mutants.toml"


class DoesNotApply(Exception):
    """The text that a mutant replaces is not in its file, or more than once."""


@dataclass(frozen=True)
class Mutant:
    """One deliberate breakage, the promise that it breaks, and the tests that must catch it."""

    name: str
    promise: str
    file: str
    edits: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]

    def mutated(self, tree: Path) -> str:
        """The file's text with the breakage in it. Raises DoesNotApply."""
        text = (tree / self.file).read_text()
        for old, new in self.edits:
            if text.count(old) != 1:
                raise DoesNotApply(
                    f"{self.name}: {old.strip()!r} stands {text.count(old)} times in {self.file}"
                )
            text = text.replace(old, new)
        return text

    def apply(self, tree: Path) -> None:
        """Break the tree."""
        (tree / self.file).write_text(self.mutated(tree))


def mutants() -> list[Mutant]:
    """Every mutant of the list."""
    return [
        Mutant(
            name=given["name"],
            promise=given["promise"],
            file=given["file"],
            edits=tuple((old, new) for old, new in given["edits"]),
            tests=tuple(given["tests"]),
        )
        for given in tomllib.loads(LIST.read_text())["mutant"]
    ]
