"""Names of folders and files: one to one, safe, and sorted like what they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import InvalidWorkflowIdError
from milepost.journal import decode_workflow_id, encode_workflow_id
from milepost.journal.layout import (
    ClaimName,
    SegmentName,
    blob_key,
    parse_claim_name,
    parse_segment_name,
)
from milepost.journal.store import check_key

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=16)


@given(ids)
def test_a_workflow_id_comes_back_from_its_folder(workflow_id: str) -> None:
    name = encode_workflow_id(workflow_id)
    assert decode_workflow_id(name) == workflow_id
    check_key(name)
    assert "/" not in name
    assert name.isascii()


@pytest.mark.parametrize(
    ("workflow_id", "name"),
    [
        ("plain-Name_1.2", "plain-Name_1.2"),
        ("a/b", "a%2Fb"),
        (".", "%2E"),
        ("..", "%2E."),
        (".env", "%2Eenv"),
        ("a b~c", "a%20b%7Ec"),
        ("100%", "100%25"),
        ("é🚀", "%C3%A9%F0%9F%9A%80"),
        ("\0\n", "%00%0A"),
    ],
)
def test_ids_are_encoded_as_documented(workflow_id: str, name: str) -> None:
    assert encode_workflow_id(workflow_id) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a b", "%2f", "%41", "%", "%zz", "é", "%FF", "a/b", "~"]
)
def test_a_folder_that_encodes_no_id_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="does not encode"):
        decode_workflow_id(name)


@pytest.mark.parametrize("workflow_id", [None, 7, b"bytes", "", "x" * 201, "é" * 34, "\udfff"])
def test_what_cannot_be_an_id_is_refused(workflow_id: str) -> None:
    with pytest.raises(InvalidWorkflowIdError):
        encode_workflow_id(workflow_id)


@given(
    st.lists(
        st.builds(
            SegmentName,
            st.integers(1, 2**32 - 1),
            st.integers(0, 2**32 - 1),
            st.binary(min_size=8, max_size=8),
        )
    )
)
def test_segment_names_sort_as_text_like_segments(names: list[SegmentName]) -> None:
    assert [parse_segment_name(each) for each in sorted(map(str, names))] == sorted(names)


@given(st.integers(1, 2**32 - 1), st.binary(min_size=8, max_size=8))
def test_a_claim_name_comes_back(epoch: int, nonce: bytes) -> None:
    assert parse_claim_name(str(ClaimName(epoch, nonce))) == ClaimName(epoch, nonce)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "0000000001",
        "1.0123456789abcdef",
        "0000000000.0123456789abcdef",
        "4294967296.0123456789abcdef",
        "0000000001.0123456789ABCDEF",
        "0000000001.0123456789abcdef0",
        "\u0660" * 9 + "\u0661.0123456789abcdef",
        "0000000001.0123456789abcdef\n",
    ],
)
def test_other_names_are_no_claims_and_no_segments(name: str) -> None:
    assert parse_claim_name(name) is None
    assert parse_segment_name(name.replace(".", ".0000000000.")) is None


@pytest.mark.parametrize("digest", ["", "../../etc", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n"])
def test_only_a_digest_names_a_blob(digest: str) -> None:
    with pytest.raises(ValueError, match="malformed digest"):
        blob_key("w", 1, digest)
