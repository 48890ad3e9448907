"""The pure core: what happened to a workflow, and what follows from it.

Events are facts in the past tense (:mod:`~milepost.replay.events`); folding them in order gives the
state of the graph (:mod:`~milepost.replay.fold`); :func:`~milepost.replay.decide.decide` says which
facts to append next and what to do once they are durable. Nothing in this folder reads a clock, a
disk, a network or a source of randomness: such values arrive as fields. The same events therefore
give the same state, byte for byte, everywhere and in every later version.
"""

from milepost.replay.codec import decode, encode
from milepost.replay.decide import decide
from milepost.replay.fold import apply, fold
from milepost.replay.invariants import check
from milepost.replay.state import State, Status

__all__ = ["State", "Status", "apply", "check", "decide", "decode", "encode", "fold"]
