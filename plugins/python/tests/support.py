"""What the tests share: one column of every type, and plugins run over rows."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from sluice_plugin.column import column_of  # noqa: E402
from sluice_plugin.ipc import write  # noqa: E402
from sluice_plugin.layout import field_of  # noqa: E402
from sluice_plugin.testing import Fixture  # noqa: E402

ROWS = 700


def _every(step, offset, make):
    return [None if row % step == offset else make(row) for row in range(ROWS)]


# Values by column name: each Arrow type of the format, with nulls and without, and text beyond ASCII.
VALUES = {
    "signal": ["log"] * ROWS,
    "time": [1_700_000_000_000_000_000 + row for row in range(ROWS)],
    "severity": _every(4, 2, lambda row: row % 24),
    "flags": _every(7, 1, lambda row: 4_294_967_295 - row),
    "count": _every(5, 4, lambda row: 2**63 + row),
    "value": _every(3, 0, lambda row: row / 7),
    "monotonic": _every(3, 1, lambda row: row % 2 == 0),
    "trace_id": _every(6, 5, lambda row: bytes([row % 256]) * 16),
    "body": _every(9, 3, lambda row: f"text {row}"),
    "status_message": _every(11, 0, lambda row: ["", "ü", "😀 ", "plain"][row % 4] + str(row)),
    "name": _every(8, 7, lambda row: f"name {row % 3} é"),
    "bounds": _every(4, 1, lambda row: [item + 0.5 for item in range(row % 4)]),
    "attrs:y:raw": _every(5, 0, lambda row: bytes([row % 256]) * (row % 5)),
    "attrs:s:none": [None] * ROWS,
}


def stream(*names):
    return write([column_of(field_of(name), VALUES[name]) for name in names or VALUES], ROWS)


def check(fixture, plugin):
    Fixture("test", fixture if isinstance(fixture, str) else json.dumps(fixture)).check(plugin)


def error_of(plugin, rows=({"body": "x"},), config=None):
    fixture = {"config": config or {}, "rows": list(rows), "expect": "unchanged"}
    return Fixture("test", json.dumps(fixture)).run(plugin).get("error")
