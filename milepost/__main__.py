"""The command line: ``milepost``, or ``python -m milepost``. Never loads Ray by itself."""

from __future__ import annotations

import importlib.metadata

import click


@click.group()
@click.version_option(importlib.metadata.version("milepost"), prog_name="milepost")
def main() -> None:
    """Durable execution for Ray."""


if __name__ == "__main__":
    main()
