"""A map over many items and a sum of them as a tree; what failed is told, the rest counts.

It is shown in parts in docs/how-to/map.md.
"""

import ray

import milepost

PAGES = ["tea and cake", "cake", "", "tea with milk and more tea"]


@ray.remote(max_retries=2, **milepost.options(catch_exceptions=True))
def count_words(page: str) -> int:
    """Counts the words of a page that has some."""
    if not page:
        raise ValueError("an empty page")
    return len(page.split())


@ray.remote
def add(counts: list[tuple[int | None, Exception | None]]) -> tuple[int, None]:
    """Adds up what could be counted."""
    return sum(count for count, error in counts if count is not None), None


milepost.init()
counted = milepost.map(count_words, (page for page in PAGES))
counts = milepost.run(counted, workflow_id="words")
print(len(counts), [count for count, error in counts])
print(repr(counts[2][1]))
total, _ = milepost.run(milepost.map(count_words, PAGES).reduce(add), workflow_id="total")
print(total)
