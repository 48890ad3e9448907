"""``milepost head``: the hash that stands for a whole journal, to be kept elsewhere."""

from __future__ import annotations

import re

import click

from milepost.errors import CorruptJournalError
from milepost.journal.reader import read_journal
from milepost.journal.tool.place import chosen_history
from milepost.journal.tool.text import print_json

_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{32})")


@click.command("head")
@click.argument("workflow_id")
@click.option("--check", metavar="HEAD", help="Whether the journal begins as when this was noted.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def command(context: click.Context, workflow_id: str, check: str | None, as_json: bool) -> None:
    """Print the head of the hash chain, or compare with an earlier one.

    A head is the number of events and the chain over all of them. Kept where nobody who can write
    to the store can, it shows later whether anything before it was changed, also by somebody who
    mends all checksums. Exit code 3: something was.
    """
    noted = _parse(check) if check is not None else None
    head, file, found = "", "", False
    for frame in read_journal(chosen_history(context, workflow_id).store, workflow_id):
        head, file = f"{frame.next_seq}:{frame.chain.hex()}", frame.file
        found = found or head == noted
    if noted is not None and not found:
        reason = f"the journal (head {head}) does not go on from head {noted}: it was changed"
        raise CorruptJournalError(file, 0, reason)
    if as_json:
        print_json({"workflow_id": workflow_id, "head": head})
    else:
        click.echo(head)


def _parse(head: str) -> str:
    if not _HEAD.fullmatch(head):
        raise click.BadParameter(f"{head!r} is not what this command prints", param_hint="--check")
    return head
