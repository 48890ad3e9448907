"""``milepost bundle``: a workflow in one file, as evidence."""

from __future__ import annotations

import time
from pathlib import Path

import click

from milepost.journal.bundle import write_bundle
from milepost.journal.signature import sign_head
from milepost.journal.tool.place import chosen_history
from milepost.journal.tool.text import clean, print_json, show_size
from milepost.journal.tool.writing import open_whole, write_text


@click.command("bundle")
@click.argument("workflow_id")
@click.option(
    "-o", "--output", metavar="FILE", required=True, help="The tar file to write.",
    type=click.Path(dir_okay=False, path_type=Path),
)  # fmt: skip
@click.option("--blobs/--no-blobs", default=True, help="With the blobs (default), or without.")
@click.option(
    "--sign", metavar="KEY", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Write FILE.head, too: the head, signed with this Ed25519 key (PEM).",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Say what was written as one JSON object.")
@click.pass_context
def command(
    context: click.Context,
    workflow_id: str,
    output: Path,
    blobs: bool,
    sign: Path | None,
    as_json: bool,
) -> None:
    """Copy a workflow into one file, with a manifest and how to verify it.

    The file is a tar; every command that looks reads it as a store, and verify FILE checks it.
    """
    store = chosen_history(context, workflow_id).store
    with open_whole(output) as file:
        manifest = write_bundle(store, workflow_id, file, blobs=blobs, name=output.name)
    if sign is not None:
        signed = sign_head(
            manifest.head,
            sign.read_bytes(),
            workflow_id=workflow_id,
            store_id=manifest.store_id,
            now_us=time.time_ns() // 1000,
        )
        write_text(signed.to_json() + "\n", output.with_name(output.name + ".head"))
    told = {
        "workflow_id": workflow_id,
        "file": str(output),
        "head": str(manifest.head),
        "objects": len(manifest.objects),
        "bytes": output.stat().st_size,
    }
    if as_json:
        print_json(told)
    else:
        size = show_size(output.stat().st_size)
        click.echo(
            clean(f"{output}: {len(manifest.objects)} objects, {size}, head {manifest.head}")
        )
