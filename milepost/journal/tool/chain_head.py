"""``milepost head``: the hash that stands for a whole journal, to be kept elsewhere."""

from __future__ import annotations

import time
from pathlib import Path

import click

from milepost.errors import AlteredJournalError
from milepost.journal.head import Head, parse_head, read_head
from milepost.journal.root import read_store_id
from milepost.journal.signature import (
    is_genuine,
    parse_signed_head,
    read_public_key,
    sign_head,
)
from milepost.journal.tool.place import chosen_history
from milepost.journal.tool.text import print_json

NOTE_BYTES_MAX = 64 * 2**10


@click.command("head")
@click.argument("workflow_id")
@click.option("--check", metavar="HEAD", help="Whether the journal begins as when this was noted.")
@click.option(
    "--sign", metavar="KEY", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Sign it with this Ed25519 key (PEM); needs milepost[sign].",
)  # fmt: skip
@click.option(
    "--key", metavar="PEM", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --check: whose signature counts.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def command(
    context: click.Context,
    workflow_id: str,
    check: str | None,
    sign: Path | None,
    key: Path | None,
    as_json: bool,
) -> None:
    """Print the head of the hash chain, or compare with an earlier one.

    A head is the number of events and the chain over all of them. Kept where nobody who can write
    to the store can, it shows later whether anything before it was changed, also by somebody who
    mends all checksums. A signed head (a file that --sign printed) may lie anywhere. Exit code 8:
    something was changed.
    """
    noted = read_noted(check, key, workflow_id, "--check") if check is not None else None
    store = chosen_history(context, workflow_id).store
    head = read_head(store, workflow_id, noted=noted)
    if sign is not None:
        signed = sign_head(
            head,
            sign.read_bytes(),
            workflow_id=workflow_id,
            store_id=read_store_id(store),
            now_us=time.time_ns() // 1000,
        )
        click.echo(signed.to_json())
    elif as_json:
        print_json({"workflow_id": workflow_id, "head": str(head)})
    else:
        click.echo(str(head))


def read_noted(text: str, key: Path | None, workflow_id: str, option: str) -> Head:
    """Read a head that was noted: the text itself, or a file with a signed one.

    Args:
        text: What was given.
        key: A file with the key that must have signed it; None takes any, and says which.
        workflow_id: The workflow that it must be of.
        option: Where it was given, for errors.

    Returns:
        The head.

    Raises:
        click.BadParameter: If it is no head, or one of another workflow or by another key.
        AlteredJournalError: If its signature is wrong.
        UsageError: If ``milepost[sign]`` is not installed.
    """
    path = Path(text)
    try:
        if not path.is_file():
            if key is not None:
                raise ValueError("--key needs a file with a signed head")
            return parse_head(text)
        with path.open(encoding="utf-8") as file:
            signed = parse_signed_head(file.read(NOTE_BYTES_MAX))
    except (ValueError, OSError) as error:
        raise click.BadParameter(str(error), param_hint=option) from error
    if not is_genuine(signed):
        raise AlteredJournalError(str(path), 0, "the signature of this head is wrong")
    if signed.workflow_id != workflow_id:
        reason = f"it is the head of workflow {signed.workflow_id!r}"
        raise click.BadParameter(reason, param_hint=option)
    if key is None:
        click.echo(f"signed by {signed.public_key}: is that a key you know? --key checks", err=True)
    elif read_public_key(key.read_bytes()) != signed.public_key:
        raise AlteredJournalError(str(path), 0, "this head was signed with another key")
    return signed.head
