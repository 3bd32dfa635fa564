"""Warnings about what a file holds, told with the name of the file."""

import contextlib
import sys
import warnings
from collections.abc import Generator


@contextlib.contextmanager
def warnings_of(file: str) -> Generator[None, None, None]:
    """Print every warning of a block that reads a file, as ``FILE: warning: TEXT`` on standard error."""
    with warnings.catch_warnings(record=True) as caught:
        # Python shows a text once per line of code, and here the same line reads all files.
        warnings.simplefilter("always")
        try:
            yield
        finally:  # also beside problems
            if caught:
                sys.stdout.flush()  # before what goes to standard error
            for warning in caught:
                print(f"{file}: warning: {warning.message}", file=sys.stderr)
