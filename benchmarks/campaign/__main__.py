"""The command: ``make campaign KILLS=200 SEED=1 KINDS=worker,dispatcher``.

Plays a campaign, checks what it left, and prints a table and a verdict. Where a promise was broken,
the exit code is 1, and the ledger, the store and the logs of drivers stay for whoever looks why.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from campaign.campaign import Campaign, StuckError
from campaign.history import read_record
from campaign.ledger import Reader
from campaign.report import print_report
from campaign.rules import find_violations
from campaign.stage import Conditions
from campaign.strikes import STRIKES
from milepost.journal import open_store
from storage_servers import s3_server

TERMINATED = 143
"""The exit code, as shells know it."""


def main() -> int:
    """Run the command; returns its exit code."""
    given = _parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that clusters are stopped
    folder = Path(tempfile.mkdtemp(prefix="campaign-"))
    print(f"campaign of {given.kills} strikes, seed {given.seed}, in {folder}", flush=True)
    began_s = time.monotonic()
    with _open_storage(folder, bucket=given.bucket) as storage:
        kept = _play(given, folder, storage)
    print(f"took {time.monotonic() - began_s:.0f} s")
    if kept and not given.keep:
        shutil.rmtree(folder)
    else:
        print(f"ledger, store and logs are kept in {folder}; the seed is {given.seed}")
    return 0 if kept else 1


@contextmanager
def _open_storage(folder: Path, *, bucket: bool) -> Iterator[str]:
    """Give the URI of an empty store: a folder, or a bucket of a server that ends thereafter."""
    if not bucket:
        yield str(folder / "store")
        return
    with s3_server() as server:
        yield server.uri("store")


def _play(given: argparse.Namespace, folder: Path, storage: str) -> bool:
    """Play, check and print; returns whether every promise was kept."""
    conditions = Conditions(
        folder=folder,
        storage=storage,
        seed=given.seed,
        nodes=given.nodes,
        drivers=given.drivers,
        at_once=given.at_once,
        lease_s=given.lease,
    )
    kinds = {kind: STRIKES[kind].weight for kind in given.kinds or STRIKES}
    stuck, campaign = "", Campaign(conditions, kinds, _say)
    try:
        campaign.play(given.kills, 60 * given.minutes)
    except StuckError as error:
        stuck = f"STUCK  {error}"
    record = read_record(Reader(conditions.ledger).read(), open_store(storage))
    record.leaks = campaign.leaks
    violations = find_violations(record)
    print_report(record, violations)
    if stuck:
        print(stuck)
    return not violations and not stuck


def _say(text: str) -> None:
    print(text, flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="campaign", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how many strikes")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="strike no longer")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="by default the time")
    parser.add_argument("--kinds", type=_parse_kinds, help=f"some of {', '.join(STRIKES)}")
    parser.add_argument("--nodes", type=int, default=1, help="nodes of a cluster beside the head")
    parser.add_argument("--drivers", type=int, default=2, help="drivers of a cluster")
    parser.add_argument("--at-once", type=int, default=3, help="workflows under way per driver")
    parser.add_argument("--lease", type=float, default=3.0, help="how long a lease lasts, s")
    parser.add_argument("--bucket", action="store_true", help="a store in a bucket, not a folder")
    parser.add_argument("--keep", action="store_true", help="keep ledger, store and logs anyway")
    return parser.parse_args()


def _parse_kinds(text: str) -> list[str]:
    kinds = [each for each in text.replace(",", " ").split() if each]
    unknown = sorted(set(kinds) - set(STRIKES))
    if unknown:
        raise argparse.ArgumentTypeError(f"no such kinds: {', '.join(unknown)}")
    return kinds


if __name__ == "__main__":
    sys.exit(main())
