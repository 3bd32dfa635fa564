"""`python -m optax_ext`: the command line."""

from optax_ext.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
