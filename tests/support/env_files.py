"""Files of environment variables, as Compose reads them."""


def read_env(path):
    """Its variables; comments and empty lines are none."""
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
