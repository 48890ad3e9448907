"""The pages of the documentation as programs see them: which there are, and what code is in them.

`<!--- skip: next -->` leaves a block out; `<!--- invisible-code-block: python` holds what a page
takes for granted.
"""

from __future__ import annotations

import re
from pathlib import Path

from sybil import Example, Sybil
from sybil.parsers.myst import CodeBlockParser, SkipParser
from sybil.typing import Evaluator

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    """Names a page as a reader of the tree would."""
    return page.relative_to(ROOT).as_posix()


def pages_with(*languages: str) -> list[Path]:
    """Returns the pages that hold code in one of these languages."""
    fence = re.compile(rf"^```({'|'.join(languages)})$", re.MULTILINE)
    return [page for page in PAGES if fence.search(page.read_text(encoding="utf-8"))]


def evaluate(page: Path, **evaluators: Evaluator) -> None:
    """Gives each block of code to the evaluator of its language, in the page's order.

    Raises:
        SybilFailure: If an evaluator says so.
    """
    parsers = [CodeBlockParser(language, each) for language, each in evaluators.items()]
    for example in Sybil([*parsers, SkipParser()], path=str(ROOT)).parse(page).examples():
        example.evaluate()


def source_of(example: Example) -> str:
    """Returns the text of a block."""
    return str(example.parsed)
