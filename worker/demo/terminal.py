"""How a long-running command tells a person what it does: steps, and remarks below them.

In a file or pipe a remark stays one line, for whoever searches in it.
"""

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

_WIDTH_OF_A_FILE = 120


class Terminal:
    """A console with steps and remarks."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = max(self.console.width, _WIDTH_OF_A_FILE)

    def step(self, text: str) -> None:
        """A new step begins."""
        self.console.print(Text.assemble(("==> ", "bold cyan"), (text, "bold")))

    def say(self, text: str) -> None:
        """Something about the present step."""
        self.indented(Text(text))

    def plain(self, text: str = "") -> None:
        """A line to be copied as it is."""
        self.console.print(Text(text), soft_wrap=True)

    def indented(self, text: Text) -> None:
        """A remark that has its colours already."""
        if self.console.is_terminal:
            self.console.print(Padding(text, (0, 0, 0, 4), expand=False))
        else:  # a line stays a line, for whoever searches in it
            self.console.print(Text.assemble("    ", text), soft_wrap=True)

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Show that something goes on, as long as the block lasts."""
        if not self.console.is_terminal:
            yield
            return
        with self.console.status("one moment …", spinner="dots"):
            yield
