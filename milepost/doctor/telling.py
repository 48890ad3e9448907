"""Prints what the doctor finds, for people or for programs."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from milepost.doctor.finding import Finding, Level
from milepost.doctor.rounds import examine

COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.FAULT: "red"}


def tell_all(storage: str | None, with_ray: bool, as_json: bool) -> None:
    """Examine everything and print each finding as it comes.

    Args:
        storage: Path or URI of the store; by default the folder that a driver would use.
        with_ray: Whether to connect to Ray, or start it.
        as_json: Whether to print JSON.

    Raises:
        click.exceptions.Exit: If something must be mended (exit code 1).
    """
    faults = 0
    for finding in examine(storage, with_ray=with_ray):
        faults += finding.level is Level.FAULT
        click.echo(json.dumps(asdict(finding)) if as_json else _describe(finding))
    if faults:
        if not as_json:
            click.echo(f"{faults} to mend", err=True)
        raise click.exceptions.Exit(1)


def _describe(finding: Finding) -> str:
    level = click.style(f"{finding.level:8}", fg=COLOURS[finding.level])
    cure = f"\n{'':19}-> {finding.cure}" if finding.cure else ""
    return f"{level} {finding.subject:9} {finding.text}{cure}"
