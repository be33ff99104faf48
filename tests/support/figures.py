"""Figures that a long test measured, for whoever runs it: on standard error, past pytest's capture."""

import sys


def report(text: str) -> None:
    print(f"\n  measured: {text}", file=sys.__stderr__, flush=True)
