"""Extract, transform, load: the functions of Python's standard library, as Parquet.

    python parquet_etl.py OUTPUT_FOLDER

Four tasks read the source files and make Arrow tables, one turns these into a Ray Dataset, one adds
columns to it with a Ray Data pipeline, one writes it as Parquet, and the last one reads that back
and sums it up. A Dataset goes from task to task like any other value: its blocks stay in Ray's
object store, each is written to the storage once, and a fresh cluster finds them there. Run it a
second time, after whatever happened to the first cluster, and it goes on where that one stopped.

Needs Ray Data: pip install "ray[data]".
"""

from __future__ import annotations

import ast
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import ray
import ray.data
from ray.data import SaveMode

import milepost

SHARES = 4
FILES_MAX = 200
WORKFLOW_ID = "standard-library-to-parquet"


@ray.remote
def extract(share: int) -> pa.Table:
    """Lists the functions in every fourth file."""
    library = Path(sysconfig.get_path("stdlib"))
    rows = []
    for path in sorted(library.glob("*.py"))[:FILES_MAX][share::SHARES]:
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
        rows += [
            {
                "module": path.stem,
                "function": node.name,
                "lines": (node.end_lineno or node.lineno) - node.lineno + 1,
                "documented": ast.get_docstring(node) is not None,
            }
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
        ]
    return pa.Table.from_pylist(rows)


@ray.remote
def combine(*tables: pa.Table) -> Any:
    """Makes a Dataset of the tables."""
    return ray.data.from_arrow(list(tables)).materialize()


@ray.remote(num_cpus=0)  # its pipeline asks for the CPUs
def transform(functions: ray.data.Dataset) -> Any:
    """Runs a pipeline over it; the result is held by Ray, block by block."""
    return functions.map_batches(add_columns, batch_format="pyarrow").materialize()


def add_columns(table: pa.Table) -> pa.Table:
    """Tells private functions and long ones."""
    private = pc.starts_with(table["function"], "_")
    long = pc.greater(table["lines"], 50)
    return table.append_column("private", private).append_column("long", long)


@ray.remote(num_cpus=0)
def load(functions: ray.data.Dataset, folder: str) -> str:
    """Writes Parquet; when it runs again, in place of what was there."""
    functions.write_parquet(folder, mode=SaveMode.OVERWRITE)
    return folder


@ray.remote
def sum_up(folder: str) -> dict[str, Any]:
    """Counts what was written."""
    table = pyarrow.dataset.dataset(folder).to_table()
    return {
        "functions": table.num_rows,
        "public": pc.sum(pc.invert(table["private"])).as_py(),
        "documented": pc.sum(table["documented"]).as_py(),
        "long": pc.sum(table["long"]).as_py(),
    }


def build(folder: str) -> Any:
    """Returns the workflow, which writes to a folder."""
    functions = combine.bind(*[extract.bind(share) for share in range(SHARES)])
    return sum_up.bind(load.bind(transform.bind(functions), folder))


if __name__ == "__main__":
    ray.data.DataContext.get_current().enable_progress_bars = False
    milepost.init()
    for name, count in milepost.run(build(sys.argv[1]), workflow_id=WORKFLOW_ID).items():
        print(f"{name:>12} {count:>7,}")
