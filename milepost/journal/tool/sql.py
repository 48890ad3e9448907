"""``milepost sql``: questions over all workflows of a store, answered by DuckDB."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click
import pyarrow as pa

from milepost.errors import UsageError
from milepost.journal.plain import to_plain
from milepost.journal.store import Store
from milepost.journal.tables import OF_A_WORKFLOW, SCHEMAS, open_all, open_table
from milepost.journal.tool.place import chosen_history, chosen_store
from milepost.journal.tool.table import print_table
from milepost.journal.tool.text import print_json

if TYPE_CHECKING:
    import duckdb

PAGE_ROWS = 1000


@click.command("sql")
@click.argument("query")
@click.option("--workflow", "workflow_id", metavar="ID", help="Only this one; by default all.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per row and line.")
@click.pass_context
def command(context: click.Context, query: str, workflow_id: str | None, as_json: bool) -> None:
    """Ask about events, tasks, attempts and workflows, as tables, in SQL.

    The tables: workflows (one row each), tasks, attempts, events; only those that the question
    names are read. Nothing is changed, and a question can read no files. Needs milepost[sql].
    """
    database = _open_duckdb()
    if workflow_id is None:
        _load(database, chosen_store(context), query)
    else:
        history = chosen_history(context, workflow_id)
        for name in _named(query):
            if name in OF_A_WORKFLOW:
                _create(database, name, open_table(history, name))
            else:
                raise click.UsageError("with --workflow there are events, tasks and attempts")
    _answer(database, query, as_json)


def _open_duckdb() -> duckdb.DuckDBPyConnection:
    try:
        import duckdb
    except ImportError as error:
        raise UsageError("queries need an extra: pip install 'milepost[sql]'") from error
    return duckdb.connect(":memory:")


def _named(query: str) -> list[str]:
    """Find the tables that a question may need: those whose name is in it."""
    words = set(re.findall(r"[a-z_]+", query.lower()))
    return [name for name in SCHEMAS if name in words]


def _load(database: duckdb.DuckDBPyConnection, store: Store, query: str) -> None:
    for name in _named(query):
        _create(database, name, open_all(store, name))


def _create(database: duckdb.DuckDBPyConnection, name: str, reader: pa.RecordBatchReader) -> None:
    database.register("arriving", _without_zones(reader))
    database.execute(f"create table {name} as select * from arriving")  # one of our own names
    database.unregister("arriving")


def _without_zones(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """Make plain timestamps of those in UTC: DuckDB has time zones in an extension only."""
    fields = [
        pa.field(each.name, pa.timestamp("us") if pa.types.is_timestamp(each.type) else each.type)
        for each in reader.schema
    ]
    schema = pa.schema(fields)

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            yield from pa.Table.from_batches([batch]).cast(schema).to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())


def _answer(database: duckdb.DuckDBPyConnection, query: str, as_json: bool) -> None:
    import duckdb

    database.execute("set enable_external_access=false")
    database.execute("set lock_configuration=true")
    try:
        found = database.execute(query)
        names = [each[0] for each in found.description or ()]
        if as_json:
            for row in _rows(found):
                print_json(dict(zip(names, map(_plain, row), strict=True)))
        else:
            print_table(names, ([_plain(cell) for cell in row] for row in _rows(found)))
    except duckdb.Error as error:
        raise UsageError(f"the query cannot be answered: {error}") from error


def _rows(found: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while page := found.fetchmany(PAGE_ROWS):
        yield from page


def _plain(value: Any) -> Any:
    """Make of a value what JSON can say."""
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, timedelta | Decimal):
        return float(value.total_seconds() if isinstance(value, timedelta) else value)
    plain = to_plain(value)
    return plain if isinstance(plain, str | int | float | bool | list | dict | None) else str(plain)
