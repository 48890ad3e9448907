"""Plays a campaign: clusters that work, and strikes at random moments, all from one seed.

The seed fixes which strikes come in which order, after which pauses and at which of the victims
there are; real processes do the rest, so that a seed is not a trace. What happened is in the
ledger.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from random import Random

from campaign import ledger
from campaign.leaks import find_leaks, find_lost_objects
from campaign.ledger import BEGIN, Line, Reader
from campaign.stage import Conditions, Stage, wait_until
from campaign.strikes import STRIKES, NoTargetError, Replace

RECOVERY_S_MAX = 90.0
PAUSE_S_MAX = 1.2
"""Between a recovery and the next strike."""

AT_ONCE = 0.2
"""So many of the strikes come without waiting for the recovery from the one before."""

WORK_S_MAX = 60.0

LEFT_S = 12.0
"""How long a cluster that was headless or only paused goes on beside the one that took over."""


class StuckError(Exception):
    """The campaign cannot go on: nothing works any more."""


class Campaign:
    """See the module.

    Attributes:
        leaks: What was left over that should not have been.
    """

    def __init__(self, conditions: Conditions, kinds: dict[str, int], say: Callable[..., None]):
        """Prepare to play.

        Args:
            conditions: What all clusters have in common.
            kinds: The kinds of strikes, with their weights.
            say: Called with what happens, for whoever watches.
        """
        self._conditions = conditions
        self._kinds = kinds
        self._say = say
        self._draw = Random(f"{conditions.seed} strikes")
        self._reader = Reader(conditions.ledger)
        self._lines: list[Line] = []
        self._stages = 0
        self.leaks: list[str] = []
        self._open_stages: dict[Stage, float] = {}  # until when it may live beside the present one

    def play(self, kills: int, seconds_max: float) -> None:
        """Strike so many times, then wait until everything that was begun has ended.

        Args:
            kills: How many times.
            seconds_max: After so long there are no more strikes.

        Raises:
            StuckError: If nothing works any more.
        """
        try:
            self._stage = self._open()
            deadline = time.monotonic() + seconds_max
            for number in range(1, kills + 1):
                if time.monotonic() < deadline:
                    self._strike(number)
            self._close(self._stage)
        finally:
            for stage in self._open_stages:
                stage.stop()
                self.leaks += [
                    f"outlives its cluster: {each}" for each in stage.cluster.processes()
                ]

    def _open(self) -> Stage:
        """Start a cluster, and have it go on with what there is."""
        self._stages += 1
        stage = Stage(self._stages, self._conditions)
        self._open_stages[stage] = float("inf")
        stage.start()
        stage.note("opened")
        stage.start_standby()
        for _ in range(self._conditions.drivers):
            stage.start_driver(recover=self._draw.random() < 0.5)
        return stage

    def _strike(self, number: int) -> None:
        """Wait for work, pause, strike, and as a rule wait for the recovery."""
        self._await_work()
        time.sleep(self._draw.random() * PAUSE_S_MAX)
        kind = self._draw.choices(list(self._kinds), list(self._kinds.values()))[0]
        strike = STRIKES[kind]
        self._catch_up()
        before = len(self._lines)
        try:
            blow = strike.hit(self._stage, self._draw)
        except NoTargetError:
            raise StuckError(f"nothing to strike at: {kind}") from None
        ledger.write(
            str(self._conditions.ledger),
            "strike",
            kind=kind,
            number=number,
            hit=blow.pids,
            at_ns=blow.at_ns,
        )
        if strike.replace is not None:
            self._replace(strike.replace)
        patient = self._draw.random() >= AT_ONCE
        told = self._await_recovery(kind, before) if patient else "not waited for"
        self._say(f"{number:>4}  {kind:<16} {len(blow.pids)} processes, {told}")

    def _replace(self, replace: Replace) -> None:
        """Start anew what is gone; a cluster that still lives is left to itself for a while."""
        former = self._stage
        self._stage = replace(former, self._open, self._draw)
        if self._stage is not former:
            self._open_stages[former] = time.monotonic() + LEFT_S

    def _stop_left(self) -> None:
        """Stop the clusters whose time is up."""
        now_s = time.monotonic()
        for stage in [each for each, until_s in self._open_stages.items() if until_s <= now_s]:
            stage.stop()
            del self._open_stages[stage]

    def _catch_up(self) -> None:
        self._stop_left()
        self._lines += self._reader.read()

    def _await_work(self) -> None:
        """Wait until a task begins."""
        self._catch_up()
        seen = len(self._lines)

        def works() -> bool:
            self._catch_up()
            return any(line.what == BEGIN for line in self._lines[seen:])

        if not wait_until(works, WORK_S_MAX):
            raise StuckError(f"no task has begun for {WORK_S_MAX:.0f} s")

    def _await_recovery(self, kind: str, before: int) -> str:
        """Wait for what proves the recovery; returns in words when it came.

        The strike's own line is written after it was made, so it is looked for, too.
        """
        strike, found = STRIKES[kind], list[Line]()

        def recovered() -> bool:
            self._catch_up()
            marks = ("woken", "strike") if strike.from_wake else ("strike",)
            mark = next((each for each in self._lines[before:] if each.what in marks), None)
            if mark is None:
                return False
            known = [line for line in self._lines if line.at_ns < mark.at_ns]
            after = [line for line in self._lines[before:] if line.at_ns > mark.at_ns]
            proof = strike.proof(mark, known, after)
            found[:] = [mark, proof] if proof else []
            return bool(proof)

        if not wait_until(recovered, RECOVERY_S_MAX):
            raise StuckError(f"no recovery within {RECOVERY_S_MAX:.0f} s")
        mark, proof = found
        if proof is mark:
            return "nothing was broken off"
        seconds = (proof.at_ns - mark.at_ns) / 1e9
        opened = [line.at_ns for line in self._lines[before:] if line.what == "opened"]
        since_ns = max([mark.at_ns, *(at_ns for at_ns in opened if at_ns < proof.at_ns)])
        ledger.write(
            str(self._conditions.ledger),
            "recovered",
            kind=kind,
            seconds=seconds,
            own_seconds=(proof.at_ns - since_ns) / 1e9,
        )
        return f"recovered after {seconds:.2f} s"

    def _close(self, stage: Stage) -> None:
        """Let everything come to its end, and look what is left."""
        self._say("      no more strikes; waiting until everything has ended")
        if not stage.finish():
            self.leaks.append(f"drivers still wait: {sorted(stage.living_drivers())}")
            return
        for name, driver in stage.drivers.items():
            if driver.returncode not in (0, -signal.SIGKILL):
                self.leaks.append(f"driver {name} ended with {driver.returncode}")
        self._catch_up()
        self.leaks += find_lost_objects(self._lines)
        self.leaks += find_leaks(stage, self._conditions.storage)
