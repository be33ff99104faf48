"""Coverage-guided fuzzing of one target: `python tests/fuzz/target.py NAME [options and folders of libFuzzer]`."""

import logging
import sys

import atheris
import structlog

# Our own modules are instrumented; the decoders in C (orjson, zlib, zstandard) are not.
with atheris.instrument_imports(include=["worker", "contracts"], enable_loader_override=False):
    from support import fuzzing

if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], fuzzing.TARGETS[name])
    atheris.Fuzz()
