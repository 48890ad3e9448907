"""Plays a campaign: clusters that work, and strikes at random moments, all from one seed.

The seed fixes which strikes come in which order, after which pauses and at which of the victims
there are; real processes do the rest, so that a seed is not a trace. What happened is in the
ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

from campaign import ledger
from campaign.ledger import BEGIN, Line, Reader
from campaign.stage import Conditions, Stage, wait_until
from campaign.strikes import STRIKES, NoTargetError, Strike

RECOVERY_S_MAX = 90.0
PAUSE_S_MAX = 1.2
"""Between a recovery and the next strike."""

AT_ONCE = 0.2
"""So many of the strikes come without waiting for the recovery from the one before."""

WORK_S_MAX = 60.0


class StuckError(Exception):
    """The campaign cannot go on: nothing works any more."""


class Campaign:
    """See the module."""

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
        self._leaks: list[str] = []

    def play(self, kills: int) -> list[str]:
        """Strike so many times, then wait until everything that was begun has ended.

        Returns:
            What was left over that should not have been.

        Raises:
            StuckError: If nothing works any more.
        """
        stage = self._open()
        try:
            for number in range(1, kills + 1):
                stage = self._strike(number, stage)
            self._close(stage)
        finally:
            stage.stop()
        return self._leaks

    def _open(self) -> Stage:
        """Start a cluster, and have it go on with what there is."""
        self._stages += 1
        stage = Stage(self._stages, self._conditions)
        try:
            stage.start()
            ledger.write(str(self._conditions.ledger), "opened", stage=stage.number)
            stage.start_standby()
            for _ in range(self._conditions.drivers):
                stage.start_driver(recover=self._draw.random() < 0.5)
        except BaseException:
            stage.stop()
            raise
        return stage

    def _strike(self, number: int, stage: Stage) -> Stage:
        """Wait for work, pause, strike, and as a rule wait for the recovery."""
        self._await_work()
        time.sleep(self._draw.random() * PAUSE_S_MAX)
        kind = self._draw.choices(list(self._kinds), list(self._kinds.values()))[0]
        strike = STRIKES[kind]
        self._catch_up()
        before = len(self._lines)
        at_ns = time.monotonic_ns()
        try:
            hit = strike.hit(stage, self._draw)
        except NoTargetError:
            raise StuckError(f"nothing to strike at: {kind}") from None
        ledger.write(
            str(self._conditions.ledger), "strike", kind=kind, number=number, hit=hit, at_ns=at_ns
        )
        if strike.again is not None:
            stage = strike.again(stage, self._open)
        patient = self._draw.random() >= AT_ONCE
        seconds = self._await_recovery(strike, before) if patient else None
        told = "nothing to wait for" if seconds is None else f"recovered after {seconds:.2f} s"
        self._say(f"{number:>4}  {kind:<12} {len(hit)} processes, {told}")
        return stage

    def _catch_up(self) -> None:
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

    def _await_recovery(self, strike: Strike, before: int) -> float | None:
        """Wait for what proves the recovery; returns after how many seconds it came.

        The strike's own line is written after it was made, so it is looked for, too.
        """
        found: list[Line] = []

        def recovered() -> bool:
            self._catch_up()
            mark = next((each for each in self._lines[before:] if each.what == "strike"), None)
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
            return None
        seconds = (proof.at_ns - mark.at_ns) / 1e9
        ledger.write(str(self._conditions.ledger), "recovered", kind=mark["kind"], seconds=seconds)
        return seconds

    def _close(self, stage: Stage) -> None:
        """Let everything come to its end, and look what is left."""
        self._say("      no more strikes; waiting until everything has ended")
        if not stage.finish():
            self._leaks.append(f"drivers still wait: {sorted(stage.living_drivers())}")
        for name, driver in stage.drivers.items():
            if driver.returncode not in (0, None, -9):
                self._leaks.append(f"driver {name} ended with {driver.returncode}")
