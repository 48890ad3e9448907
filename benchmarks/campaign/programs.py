"""The workflows of a campaign: one table of programs, each with the value it must return.

A program draws its shape and its values from a generator that is seeded by the workflow's id, so
that any driver of any cluster can build the same workflow again. To add one: write a function that
returns a :class:`Plan`, and put it in :data:`PROGRAMS`. Every task writes in the ledger when it
begins and ends; its value must not depend on how often it was tried.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import ray

import milepost
from campaign.ledger import execution

MODULUS = 1_000_003
LARGE_BYTES = (70_000, 400_000)
"""Above the 64 KiB up to which a value travels in the journal."""

NAP_S = 0.06


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One workflow to run.

    Attributes:
        dag: Its graph.
        expected: What it returns, by a plain evaluation.
        durability: As for ``milepost.run``.
        cancel_after_s: When its driver cancels it; None if never.
    """

    dag: Any
    expected: int
    durability: str = "pipelined"
    cancel_after_s: float | None = None


Program = Callable[[Random, str], Plan]
"""From a seeded generator and the path of the ledger."""


def combine(*values: int) -> int:
    """What most tasks compute: depends on every value and on their order."""
    total = 7
    for value in values:
        total = (total * 31 + value) % MODULUS
    return total


@ray.remote(max_retries=-1)
def step(ledger: str, nap_s: float, *values: int) -> int:
    """An ordinary task."""
    with execution(ledger):
        time.sleep(nap_s)
        return combine(*values)


@ray.remote(max_retries=-1, retry_exceptions=True)
def moody(ledger: str, failures: int, value: int) -> int:
    """Raises at its first attempts."""
    with execution(ledger) as task:
        if task.attempt <= failures:
            raise ValueError(f"attempt {task.attempt} of {failures + 1}")
        return combine(value)


@ray.remote(max_retries=-1)
def hopeless(ledger: str, value: int) -> int:
    """Always raises; a death of its worker is no reason to give up, what it raises is."""
    with execution(ledger):
        raise LookupError(value)


@ray.remote(max_retries=-1)
def fragile(ledger: str, value: int) -> int:
    """Raises, without another try, until somebody has mended its workflow."""
    with execution(ledger) as task:
        if not os.path.exists(mended_path(ledger, task.workflow_id)):
            raise LookupError(value)
        return combine(value)


@ray.remote(max_retries=-1)
def settle(ledger: str, caught: tuple[int | None, Exception | None], value: int) -> int:
    """Takes a pair of value and exception."""
    with execution(ledger):
        result, error = caught
        assert (result is None) == isinstance(error, LookupError), caught
        return combine(-1 if result is None else result, value)


@ray.remote(max_retries=-1)
def countdown(ledger: str, nap_s: float, left: int, value: int) -> Any:
    """Goes on with a continuation, so many times."""
    with execution(ledger):
        time.sleep(nap_s)
        if not left:
            return combine(value)
        inner = step.bind(ledger, 0.0, value)
        return milepost.continuation(countdown.bind(ledger, nap_s, left - 1, inner))


@ray.remote(max_retries=-1)
def wake(ledger: str, slept: None, value: int) -> int:
    """Runs after a sleep."""
    with execution(ledger):
        assert slept is None, slept
        return combine(value)


@ray.remote(max_retries=-1)
def make_bytes(ledger: str, seed: int, size: int) -> bytes:
    """Returns a large value."""
    with execution(ledger):
        return Random(seed).randbytes(size)


@ray.remote(max_retries=-1)
def make_ref(ledger: str, seed: int, size: int) -> dict[str, Any]:
    """Returns a ref to a large value, inside another value."""
    with execution(ledger):
        return {"ref": ray.put(Random(seed).randbytes(size))}


@ray.remote(max_retries=-1)
def weigh(ledger: str, nap_s: float, content: bytes) -> int:
    """Makes a small value of a large one."""
    with execution(ledger):
        time.sleep(nap_s)
        return zlib.crc32(content) % MODULUS


@ray.remote(max_retries=-1)
def weigh_ref(ledger: str, nap_s: float, box: Any) -> int:
    """Makes a small value of a large one behind a ref."""
    with execution(ledger):
        time.sleep(nap_s)
        ref = box["ref"] if isinstance(box, dict) else box[0]
        content: Any = ray.get(ref)
        return zlib.crc32(content) % MODULUS


def fan_out(draw: Random, ledger: str) -> Plan:
    """Many tasks, one that takes all of their values."""
    naps = [draw.random() * NAP_S for _ in range(draw.randint(10, 80))]
    placed = step.options(scheduling_strategy=draw.choice(["DEFAULT", "SPREAD"]))
    leaves = [placed.bind(ledger, nap_s, at) for at, nap_s in enumerate(naps)]
    expected = combine(*(combine(at) for at in range(len(naps))))
    return Plan(dag=step.bind(ledger, 0.0, *leaves), expected=expected, durability=_draw(draw))


def slow(draw: Random, ledger: str) -> Plan:
    """Tasks that last, so that a strike breaks them off."""
    naps = [draw.uniform(0.3, 1.5) for _ in range(draw.randint(3, 8))]
    leaves = [step.bind(ledger, nap_s, at) for at, nap_s in enumerate(naps)]
    expected = combine(*(combine(at) for at in range(len(naps))))
    return Plan(dag=step.bind(ledger, 0.0, *leaves), expected=expected, durability=_draw(draw))


def chain(draw: Random, ledger: str) -> Plan:
    """One task after the other: the short ones travel together."""
    value, dag = 1, step.bind(ledger, 0.0, 1)
    value = combine(value)
    for _ in range(draw.randint(10, 60)):
        dag, value = step.bind(ledger, draw.choice([0.0, 0.0, NAP_S]), dag), combine(value)
    return Plan(dag=dag, expected=value, durability=_draw(draw))


def diamonds(draw: Random, ledger: str) -> Plan:
    """Each layer takes values of the one before, each value several times."""
    values = list(range(4))
    layer: list[Any] = [step.bind(ledger, NAP_S, value) for value in values]
    values = [combine(value) for value in values]
    for _ in range(draw.randint(2, 6)):
        pairs = [draw.sample(range(4), 2) for _ in range(4)]
        layer = [step.bind(ledger, NAP_S / 2, *(layer[at] for at in pair)) for pair in pairs]
        values = [combine(*(values[at] for at in pair)) for pair in pairs]
    return Plan(dag=step.bind(ledger, 0.0, *layer), expected=combine(*values))


def continuations(draw: Random, ledger: str) -> Plan:
    """Tasks that return further graphs."""
    depths = [draw.randint(1, 8) for _ in range(draw.randint(1, 3))]
    dags = [countdown.bind(ledger, NAP_S / 2, depth, at) for at, depth in enumerate(depths)]
    values = list(range(len(depths)))
    for at, depth in enumerate(depths):
        for _ in range(depth + 1):
            values[at] = combine(values[at])
    return Plan(dag=step.bind(ledger, 0.0, *dags), expected=combine(*values))


def retries(draw: Random, ledger: str) -> Plan:
    """Tasks that raise a few times first."""
    count = draw.randint(3, 12)
    leaves = [moody.bind(ledger, draw.randint(0, 3), at) for at in range(count)]
    expected = combine(*(combine(at) for at in range(count)))
    return Plan(dag=step.bind(ledger, 0.0, *leaves), expected=expected, durability=_draw(draw))


def catches(draw: Random, ledger: str) -> Plan:
    """Failures that become values."""
    options = milepost.options(catch_exceptions=True)
    dags, values = [], []
    for at in range(draw.randint(2, 6)):
        fails = draw.random() < 0.6
        caught = hopeless if fails else step
        arguments = (ledger, at) if fails else (ledger, NAP_S, at)
        dags.append(settle.bind(ledger, caught.options(**options).bind(*arguments), at))
        values.append(combine(-1 if fails else combine(at), at))
    return Plan(dag=step.bind(ledger, 0.0, *dags), expected=combine(*values))


def large(draw: Random, ledger: str) -> Plan:
    """Values that are blobs and Ray objects, as values and as refs."""
    weights, values = [], []
    for _ in range(draw.randint(1, 4)):
        seed, size = draw.getrandbits(32), draw.randint(*LARGE_BYTES)
        weight = zlib.crc32(Random(seed).randbytes(size)) % MODULUS
        made = make_bytes.bind(ledger, seed, size)
        weights += [weigh.bind(ledger, NAP_S, made), weigh_ref.bind(ledger, NAP_S / 2, [made])]
        weights.append(weigh_ref.bind(ledger, NAP_S / 2, make_ref.bind(ledger, seed, size)))
        values += [weight] * 3
    return Plan(dag=step.bind(ledger, 0.0, *weights), expected=combine(*values))


def sleeps(draw: Random, ledger: str) -> Plan:
    """Waits that no worker runs."""
    naps = [draw.uniform(0.2, 4.0) for _ in range(draw.randint(1, 4))]
    dags = [wake.bind(ledger, milepost.sleep(nap_s), at) for at, nap_s in enumerate(naps)]
    expected = combine(*(combine(at) for at in range(len(naps))))
    return Plan(dag=step.bind(ledger, 0.0, *dags), expected=expected, durability=_draw(draw))


def failing(draw: Random, ledger: str) -> Plan:
    """Fails for good; its driver mends what was wrong, and resumes it."""
    count = draw.randint(2, 10)
    leaves = [step.bind(ledger, NAP_S, at) for at in range(count)]
    expected = combine(*(combine(at) for at in range(count)), combine(count))
    return Plan(dag=step.bind(ledger, 0.0, *leaves, fragile.bind(ledger, count)), expected=expected)


def canceled(draw: Random, ledger: str) -> Plan:
    """Is canceled, unless it ends before."""
    plan = draw.choice([fan_out, chain, continuations])(draw, ledger)
    return Plan(dag=plan.dag, expected=plan.expected, cancel_after_s=draw.random() * 1.5)


PROGRAMS: dict[str, Program] = {
    "fan_out": fan_out,
    "slow": slow,
    "chain": chain,
    "diamonds": diamonds,
    "continuations": continuations,
    "retries": retries,
    "catches": catches,
    "large": large,
    "sleeps": sleeps,
    "failing": failing,
    "canceled": canceled,
}


def make_plan(workflow_id: str, seed: int, ledger: str) -> Plan:
    """Build the workflow of an id, the same for everybody.

    Args:
        workflow_id: The id; what follows the last dash is the program's name.
        seed: The campaign's seed.
        ledger: Path of the ledger.
    """
    program = PROGRAMS[workflow_id.rpartition("-")[2]]
    return program(Random(f"{seed} {workflow_id}"), ledger)


def mended_path(ledger: str, workflow_id: str) -> str:
    """Where a mark stands that what was wrong with a workflow is mended."""
    return f"{ledger}.mended.{workflow_id}"


def _draw(draw: Random) -> str:
    return draw.choice(["pipelined", "pipelined", "strict"])
