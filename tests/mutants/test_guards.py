"""The list of guards fits the code: what ``make mutants`` removes is still there."""

from __future__ import annotations

from pathlib import Path

import pytest

from guards import GUARDS, Guard

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_guard_stands_where_the_list_says(guard: Guard) -> None:
    text = (ROOT / "milepost" / guard.file).read_text()
    assert text.count(guard.old) == 1, guard.file
    compile(text.replace(guard.old, guard.new), guard.file, "exec")


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_the_tests_of_a_guard_exist(guard: Guard) -> None:
    files = [word for word in guard.tests.split() if "/" in word]
    assert files
    assert all((ROOT / "tests" / file).is_file() for file in files)


def test_every_guard_has_a_name_of_its_own() -> None:
    assert len({guard.name for guard in GUARDS}) == len(GUARDS) >= 40
