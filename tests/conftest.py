"""Settings that every test needs before Ray is imported, and the storage servers they share.

Ray reads how to authenticate when it is imported, so that a test process can only connect to a
cluster started later if both use what is set here.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# After the settings: it imports the cluster's helper, which reads the token once.
from storage_servers import SERVERS, NotInstalledError, StorageServer
from tallies import Tallies

CHOSEN = os.environ.get("MILEPOST_TEST_SERVERS", " ".join(SERVERS)).split()
"""The storage servers to test on: all of them, unless the variable names some."""


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Prints what damage, crashes and rivals came to."""
    for line in Tallies.of(config).lines():
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def tallies(pytestconfig: pytest.Config) -> Tallies:
    """Counts outcomes for the tables at the end of the run."""
    return Tallies.of(pytestconfig)


@pytest.fixture(scope="session")
def storage_server() -> Iterator[Callable[[str], StorageServer]]:
    """Gives a running storage server by name, started when it is first asked for.

    A test that asks for one that cannot be had is skipped and says what to install.
    """
    running: dict[str, StorageServer | str] = {}
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        # Not the proxy of this machine, and no credentials of its user.
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("no_proxy", "127.0.0.1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")

        def get(name: str) -> StorageServer:
            if name not in CHOSEN:
                pytest.skip(f"{name} is not among MILEPOST_TEST_SERVERS")
            if name not in running:
                try:
                    server = stack.enter_context(SERVERS[name]())
                except NotInstalledError as error:
                    running[name] = str(error)
                else:
                    running[name] = server
                    for variable, value in server.environment.items():
                        patch.setenv(variable, value)
            found = running[name]
            if isinstance(found, str):
                pytest.skip(found)
            return found

        yield get
