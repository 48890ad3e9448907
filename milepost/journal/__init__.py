"""Bytes that last: what happened to a workflow, on storage that nobody shares a memory with.

A store (:mod:`~milepost.journal.store`) keeps objects. A workflow's journal is a chain of segments
(:mod:`~milepost.journal.segment`) made of frames (:mod:`~milepost.journal.frame`). Whoever takes
ownership (:mod:`~milepost.journal.ownership`) gets the only writer whose flushes succeed
(:mod:`~milepost.journal.writer`); everybody may read (:mod:`~milepost.journal.reader`). The owner
compacts what has become long (:mod:`~milepost.journal.compaction`). Large
values are blobs beside the journal (:mod:`~milepost.journal.blob`).

An event is opaque bytes here. Nothing in this package imports Ray or unpickles anything, and every
call blocks: an event loop calls it from a thread.
"""

from milepost.journal.backward import BackwardWalk, read_backward
from milepost.journal.blob import get_blob, map_blob, put_blob
from milepost.journal.catalog import list_summaries, list_workflows
from milepost.journal.compaction import Compactor
from milepost.journal.deletion import delete_workflow
from milepost.journal.frame import Frame
from milepost.journal.history import Entry, History, open_history
from milepost.journal.layout import decode_workflow_id, encode_workflow_id
from milepost.journal.local import LocalStore
from milepost.journal.location import Location
from milepost.journal.memory import MemoryStore
from milepost.journal.opening import open_store, reveal_uri
from milepost.journal.ownership import take_ownership
from milepost.journal.reader import read_journal
from milepost.journal.remote import RemoteStore
from milepost.journal.root import read_store_id
from milepost.journal.states import load_settled, load_state
from milepost.journal.store import ObjectNotFoundError, Store, StoredObject
from milepost.journal.summary import WorkflowSummary, read_status, summarize
from milepost.journal.verify import Finding, Kind, Verification, verify, verify_all
from milepost.journal.writer import JournalWriter

__all__ = [
    "BackwardWalk",
    "Compactor",
    "Entry",
    "Finding",
    "Frame",
    "History",
    "JournalWriter",
    "Kind",
    "LocalStore",
    "Location",
    "MemoryStore",
    "ObjectNotFoundError",
    "RemoteStore",
    "Store",
    "StoredObject",
    "Verification",
    "WorkflowSummary",
    "decode_workflow_id",
    "delete_workflow",
    "encode_workflow_id",
    "get_blob",
    "list_summaries",
    "list_workflows",
    "load_settled",
    "load_state",
    "map_blob",
    "open_history",
    "open_store",
    "put_blob",
    "read_backward",
    "read_journal",
    "read_status",
    "read_store_id",
    "reveal_uri",
    "summarize",
    "take_ownership",
    "verify",
    "verify_all",
]
