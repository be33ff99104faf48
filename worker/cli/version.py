"""The version of the installed distribution."""

from importlib import metadata


def version() -> str:
    """The version; "unknown" in a checkout that was never installed."""
    try:
        return metadata.version("agent-persistence")
    except metadata.PackageNotFoundError:
        return "unknown"
