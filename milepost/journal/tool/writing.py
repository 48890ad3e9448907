"""Files that commands make: whole or not at all, and never in place of something by accident."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import click


def write_text(text: str, output: Path | None) -> None:
    """Write a document to a file, or print it.

    Args:
        text: The document.
        output: The file; None is standard output.

    Raises:
        click.ClickException: If the file cannot be written.
    """
    if output is None:
        click.echo(text, nl=False)
        return
    with open_whole(output) as file:
        file.write(text.encode("utf-8"))


@contextmanager
def open_whole(output: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name only when all of it is written.

    Args:
        output: The file; one that is there is replaced. A device or a pipe is not: it is refused,
            for a file in its place would break whoever else uses it.

    Yields:
        Where to write.

    Raises:
        click.ClickException: If it cannot be written.
    """
    if output.exists() and not output.is_file():
        raise click.ClickException(f"cannot write {output}: it is there and is not a file")
    draft = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        try:
            with draft.open("wb") as file:
                yield file
            draft.replace(output)
        finally:
            with suppress(FileNotFoundError):
                draft.unlink()
    except OSError as error:
        raise click.ClickException(f"cannot write {output}: {error.strerror or error}") from error
