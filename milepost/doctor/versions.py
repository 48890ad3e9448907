"""Are Python and the packages that Milepost stands on those it was made for?"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from milepost.doctor.finding import Finding, Level

PYTHON_MIN = (3, 11)

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*([^;]*)")
_BOUND = re.compile(r"(>=|<)\s*([0-9.]+)")


def check_versions() -> Iterator[Finding]:
    """Compare what is installed with what the installed Milepost asks for.

    Yields:
        One finding for Python and one for the packages.
    """
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info >= PYTHON_MIN:
        yield Finding("python", Level.OK, text)
    else:
        yield Finding("python", Level.FAULT, text, "use Python 3.11 or newer")
    yield _check_packages([each for each in requires("milepost") or [] if "extra ==" not in each])


def _check_packages(requirements: list[str]) -> Finding:
    found, wrong = {"milepost": version("milepost")}, []
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        assert match is not None, f"requirement without a name: {requirement!r}"
        name, bounds = match.groups()
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
        if not satisfies(found[name], bounds):
            wrong.append(requirement)
    text = ", ".join(f"{name} {installed}" for name, installed in found.items())
    if not wrong:
        return Finding("packages", Level.OK, text)
    quoted = " ".join(f"'{each}'" for each in wrong)
    return Finding("packages", Level.FAULT, text, f"pip install {quoted}")


def satisfies(installed: str, bounds: str) -> bool:
    """Tell whether a version lies within bounds like ``>=2.47,<3``.

    Args:
        installed: The version; what is no number in it does not count.
        bounds: Lower bounds with ``>=`` and upper ones with ``<``.

    Returns:
        Whether it does.
    """
    numbers = _numbers(installed)
    return bool(numbers) and all(
        numbers >= _numbers(bound) if operator == ">=" else numbers < _numbers(bound)
        for operator, bound in _BOUND.findall(bounds)
    )


def _numbers(text: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, match[0].split("."))) if match else ()
