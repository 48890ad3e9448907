"""What leaves the engine for a user's program holds no credentials of the storage."""

from __future__ import annotations

import pickle

from faulty_s3 import FaultyS3
from milepost.engine import outputs
from milepost.engine.messages import SliceOrder
from milepost.errors import WorkflowExecutionError
from milepost.journal import open_store
from milepost.replay.events import TaskError
from milepost.replay.payload import Encoding, inline, pack_plain
from storage_servers import s3_uri

URI = "s3://aKeyId:aSecret@bucket/folder?region=eu-west-1"
SECRETS = (b"aKeyId", b"aSecret")


def holds_secret(content: bytes) -> bool:
    return any(secret in content for secret in SECRETS)


def sealed_failure() -> WorkflowExecutionError:
    failure = WorkflowExecutionError("w", "task", "KeyError", "what")
    error = TaskError(kind="crash", type="", message="killed", traceback="", exception=None)
    failure.__dict__["_sealed_cause"] = (URI, "w", 1, error)
    return failure


def test_an_error_brings_along_how_to_open_its_cause_but_only_to_the_first_who_gets_it() -> None:
    on_its_way = pickle.dumps(sealed_failure())
    assert holds_secret(on_its_way)
    arrived = pickle.loads(on_its_way)
    assert str(arrived.__cause__) == str(pickle.loads(pickle.dumps(arrived)).__cause__)
    assert not holds_secret(pickle.dumps(arrived))
    assert not holds_secret(repr(vars(arrived)).encode())


def test_an_order_does_not_show_what_opens_the_store() -> None:
    nothing = pack_plain(None)
    assert nothing is not None
    order = SliceOrder(
        storage=URI,
        workflow_id="w",
        incarnation=1,
        epoch=1,
        slice=0,
        dispatcher=None,
        tasks=(),
        functions={},
        constants={},
        values={},
        refs={},
        retry_errors=inline(Encoding.PLAIN, nothing),
    )
    assert not holds_secret(repr(order).encode())


def test_a_store_that_is_open_is_found_by_its_name_without_credentials() -> None:
    with FaultyS3().serving() as server:
        uri = s3_uri(server.port).format("folder")
        open_store(uri)
        store = outputs.open_known(uri)
        assert outputs.open_known(store.uri) is outputs.open_known(uri) is store
        assert store.uri != uri
