"""``milepost tail``: the newest events, and those to come."""

from __future__ import annotations

import time
from collections import deque

import click

from milepost.errors import StorageUnavailableError
from milepost.journal.following import Follower
from milepost.journal.frame import Frame
from milepost.journal.history import Entry, decode_frame
from milepost.journal.reader import read_journal
from milepost.journal.tool.events import describe_entry, print_event
from milepost.journal.tool.place import chosen_history
from milepost.journal.tool.text import print_json
from milepost.replay.events import StatusChanged
from milepost.replay.state import FINAL

POLL_S = 0.5


@click.command("tail")
@click.argument("workflow_id")
@click.option("-f", "--follow", is_flag=True, help="Print what is added until the workflow ends.")
@click.option("-n", "count", type=click.IntRange(min=0), default=10, show_default=True)
@click.option("--redact", is_flag=True, help="Leave out what payloads and error texts contain.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.pass_context
def command(
    context: click.Context, workflow_id: str, follow: bool, count: int, redact: bool, as_json: bool
) -> None:
    """Print the newest events; with -f those to come, too."""
    store = chosen_history(context, workflow_id).store
    follower, last = Follower(store, workflow_id), deque[Entry](maxlen=count)
    ended = False
    for frame in read_journal(store, workflow_id):
        follower.note(frame)
        entries = list(decode_frame(frame))
        ended = _has_ended(entries, ended)
        last.extend(entries)
    for entry in last:
        _print(entry, redact, as_json)
    while follow and not ended:
        time.sleep(POLL_S)
        try:
            back_to, frames = follower.poll()
        except StorageUnavailableError as error:
            click.echo(f"the storage does not answer, trying again: {error}", err=True)
            continue
        if back_to is not None:
            click.echo(f"a new owner went on without the events from {back_to} on", err=True)
        ended = _print_new(frames, redact, as_json)


def _print_new(frames: list[Frame], redact: bool, as_json: bool) -> bool:
    ended = False
    for frame in frames:
        entries = list(decode_frame(frame))
        ended = _has_ended(entries, ended)
        for entry in entries:
            _print(entry, redact, as_json)
    return ended


def _has_ended(entries: list[Entry], before: bool) -> bool:
    statuses = [each.event.status for each in entries if isinstance(each.event, StatusChanged)]
    return statuses[-1] in FINAL if statuses else before


def _print(entry: Entry, redact: bool, as_json: bool) -> None:
    told = describe_entry(entry, redact)
    if as_json:
        print_json(told)
    else:
        print_event(told)
