"""Runs a plugin over fixtures, without Wasm. Their form is described in plugins/sdk/FIXTURES.md.

    from plugin import keep
    from sluice_plugin.testing import fixture_tests

    load_tests = fixture_tests(keep, "fixtures")
"""

import base64
import json
import unittest
from dataclasses import dataclass, field, replace
from pathlib import Path

from .column import DictColumn, Field, column_of
from .error import suggestion
from .ipc import read, write
from .layout import ALIASES, CORE, REST_LETTERS, Patterns, _ATTRIBUTE, field_of

_KEYS = ("config", "signal", "tables", "hints", "now", "rows", "expect")
_EXPECTATIONS = ("rows", "drops", "quarantined", "error")
_SIGNALS = ("log", "span", "metric")
# 2026-01-01.
_NOW = 1_767_225_600_000_000_000


@dataclass
class Limits:
    """What the call may take: microseconds of processor time, bytes of output."""

    deadline: int = 50_000 + 50 * 8192
    output: int = 8 * 1024 * 1024


@dataclass
class Hints:
    """What the node would like."""

    share: float = 1.0
    row_bytes: float = 0.0


@dataclass
class Context:
    """As a call has it; `signal.name` is `LOG`, `SPAN` or `METRIC` there, too."""

    signal: "Signal"
    now: int
    limits: Limits = field(default_factory=Limits)
    hints: Hints = field(default_factory=Hints)


@dataclass(frozen=True)
class Signal:
    name: str


def fixture_tests(plugin, folder):
    """A `load_tests` for unittest: one test for each fixture of the folder."""

    def load_tests(loader, standard_tests, pattern):
        suite = unittest.TestSuite()
        for fixture in fixtures(folder):
            suite.addTest(unittest.FunctionTestCase(lambda fixture=fixture: fixture.check(plugin), description=fixture.name))
        return suite

    return load_tests


def fixtures(folder):
    """The fixtures of a folder."""
    paths = sorted(Path(folder).glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"no fixtures in {folder}")
    return [Fixture(path.stem, path.read_text("utf-8")) for path in paths]


class Fixture:
    def __init__(self, name, text):
        self.name = name
        given = _members(json.loads(text), _KEYS, name)
        if "tables" in given:
            raise ValueError(f"{name}: plugins in Python have no `lookup`, so no `tables`")
        if not isinstance(given.get("rows"), list) or "expect" not in given:
            raise ValueError(f"{name}: `rows` and `expect` are needed")
        self.config = given.get("config", {})
        signal = given.get("signal", "log")
        if signal not in _SIGNALS:
            raise ValueError(f"{name}: `signal` must be one of {', '.join(_SIGNALS)}")
        now = int(given.get("now", _NOW))
        self.context = Context(Signal(signal.upper()), now, hints=Hints(**given.get("hints", {})))
        self.defaults = {"signal": signal, "time": now}
        self.rows = given["rows"]
        expect = given["expect"]
        unchanged = {"rows": self.rows, "drops": {}, "quarantined": {}}
        self.expect = unchanged if expect == "unchanged" else _members(expect, _EXPECTATIONS, f"{name}: expect")
        if not self.expect:
            raise ValueError(f"{name}: `expect` expects nothing")

    def check(self, plugin):
        """Fails with what differs. The plugin sees texts in plain columns, then in dictionaries."""
        case = unittest.TestCase()
        case.maxDiff = None
        for dictionaries in (False, True):
            actual = self.run(plugin, dictionaries)
            where = f"{self.name}, texts {'in dictionaries' if dictionaries else 'in plain columns'}"
            if "error" in self.expect or "error" in actual:
                case.assertIn("error", actual, f"{where}: no error; expected one with {self.expect.get('error')}")
                case.assertIn("error", self.expect, f"{where}: error {actual['error']}")
                case.assertIn(self.expect["error"], actual["error"], where)
                continue
            for key in ("drops", "quarantined"):
                if key in self.expect:
                    expected = {reason: rows for reason, rows in self.expect[key].items() if rows}
                    case.assertEqual(actual[key], expected, f"{where}: {key}")
            if "rows" in self.expect:
                # Through columns and back, so that both have the same form.
                expected = _rows_of(_columns_of(self.expect["rows"], {}, False), len(self.expect["rows"]))
                case.assertEqual(_compared(actual["rows"], expected), expected, f"{where}: rows")

    def run(self, plugin, dictionaries=False):
        """What becomes of the rows: `rows`, `drops` and `quarantined`, or `error`."""
        try:
            plugin.init(json.dumps(self.config))
            return self._process(plugin, dictionaries)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def _process(self, plugin, dictionaries):
        count = len(self.rows)
        columns = _columns_of(self.rows, self.defaults, dictionaries)
        reads = Patterns(plugin.reads)
        seen = [column for name, column in columns.items() if reads.match(name)]
        outcome = plugin.process(write(seen, count), self.context)
        if outcome["columns"]:
            columns.update((column.field.name, column) for column in read(outcome["columns"])[1])
        aside, reason = outcome["quarantine"] or (bytes((count + 7) // 8), None)
        kept = outcome["selection"] or b"\xff" * ((count + 7) // 8)
        is_set = lambda bits, row: bits[row >> 3] >> (row & 7) & 1
        rows = _rows_of(columns, count)
        rows = [row for index, row in enumerate(rows) if is_set(kept, index) and not is_set(aside, index)]
        if outcome["weight"] is not None:
            for row in rows:
                row["weight"] = row.get("weight", 1.0) * outcome["weight"]
        set_aside = sum(is_set(aside, row) for row in range(count))
        return {
            "rows": rows,
            "drops": dict(outcome["drops"]),
            "quarantined": {reason: set_aside} if set_aside else {},
        }


def _members(value, known, what):
    if not isinstance(value, dict):
        raise ValueError(f"{what}: must be an object")
    for key in value:
        if key not in known:
            raise ValueError(f"{what}: there is no key `{key}`{suggestion(key, known)}")
    return value


def _compared(rows, expected):
    """Every row has `time` and `signal`; they are compared only where the expected row names them."""
    named = expected + [{}] * len(rows)
    return [
        {key: value for key, value in row.items() if key not in ("time", "signal") or key in named[index]}
        for index, row in enumerate(rows)
    ]


_GROUPS = ("attrs", "resource", "scope")
_RESTS = tuple(f"{group}:*" for group in _GROUPS)
_JSON_COLUMNS = ("entity_refs", "span_events", "links", "metadata", "quantiles", "exemplars", "duplicate_attrs")
_ENTRY = Field("item", "struct", False, children=tuple(Field(name, "utf8", False) for name in ("key", "type", "text")))


def _columns_of(rows, defaults, dictionaries):
    """Columns by name. `defaults` are values of core columns for rows that name none."""
    cells = {}
    for index, row in enumerate(rows):
        for key, value in {**defaults, **row}.items():
            if value is None:
                continue
            for name, cell in _cells(key, value):
                cells.setdefault(name, [None] * len(rows))[index] = cell
    return {name: _column_for(name, values, dictionaries) for name, values in cells.items()}


def _cells(key, value):
    """Names of columns and cells that a member of a row stands for."""
    if key in ALIASES:
        return [(ALIASES[key], value)]
    if key in _GROUPS:
        typed = [(name, _attribute_cell(inner)) for name, inner in value.items()]
        return [(f"{key}:{letter}:{name}", cell) for name, (letter, cell) in typed]
    if key in _RESTS:
        return [(key, [_rest_entry(name, inner) for name, inner in value.items()])]
    if key == "body" and not isinstance(value, str):
        entry = _rest_entry("", value)
        return [("body", entry["text"]), ("body_type", entry["type"])]
    if key not in CORE:
        raise ValueError(f"a row has `{key}`, which is no column")
    return [(key, _core_cell(key, value))]


def _core_cell(name, value):
    kind = CORE[name].type
    if name in _JSON_COLUMNS:
        return value if isinstance(value, str) else _stable_json(value)
    if kind == "fixed":
        return bytes.fromhex(value)
    if kind == "list":
        return [float(item) if CORE[name].item == "float64" else int(item) for item in value]
    if kind == "float64":
        return float(value)
    return int(value) if kind.endswith(("int32", "int64")) else value


def _attribute_cell(value):
    """Type letter and value of an attribute."""
    if value is None:
        return "n", True
    if isinstance(value, dict) and len(value) == 1:
        key, inner = next(iter(value.items()))
        if key == "$bytes":
            return "y", base64.b64decode(inner)
        if key == "$double":
            return "d", float(inner)
        if key == "$int":
            return "i", int(inner)
    letter = {str: "s", bool: "b", int: "i", float: "d"}.get(type(value), "j")
    return letter, _stable_json(value) if letter == "j" else value


def _rest_entry(key, value):
    letter, cell = _attribute_cell(value)
    name = next(name for name, other in REST_LETTERS.items() if other == letter)
    if letter == "j":
        name = "array" if cell.startswith("[") else "kvlist"
    return {"key": key, "type": name, "text": _text(letter, cell)}


def _text(letter, cell):
    if letter == "n":
        return ""
    if letter == "y":
        return base64.b64encode(cell).decode("ascii")
    if letter == "b":
        return "true" if cell else "false"
    return repr(cell) if letter == "d" else str(cell)


def _stable_json(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _column_for(name, values, dictionaries):
    if name in _RESTS:
        return column_of(Field(name, "list", children=(_ENTRY,)), values)
    given = field_of(name)
    plain = column_of(replace(given, keys=None), values)
    if not dictionaries or given.keys is None:
        return plain
    different = list(dict.fromkeys(value for value in values if value is not None))
    keys = memoryview(b"".join((different.index(value) if value is not None else 0).to_bytes(2, "little") for value in values))
    return DictColumn(given, len(values), plain.nulls, keys.cast("H"), column_of(replace(given, keys=None), different))


def _rows_of(columns, count):
    """Rows in the one form that is compared: attributes by group with type and text, rare ones beside the others."""
    rows = [{} for _ in range(count)]
    for name, column in columns.items():
        attribute = _ATTRIBUTE.fullmatch(name)
        for row, value in zip(rows, column.values):
            if value is None:
                continue
            if name in _RESTS:
                for entry in value:
                    _show(row, name[:-2], entry["key"], REST_LETTERS[entry["type"]], entry["text"])
            elif attribute:
                _show(row, attribute[1], attribute[3], attribute[2], _text(attribute[2], value))
            elif name in _JSON_COLUMNS:
                row[name] = _stable_json(json.loads(value))
            else:
                row[name] = value.hex() if isinstance(value, bytes) else value
    return rows


def _show(row, group, key, letter, text):
    """One key has one value; should a plugin have given it a second one of another type, that is shown, too."""
    shown = f"{letter}: {_stable_json(json.loads(text)) if letter == 'j' else text}"
    name = f"{group}.{key}"
    row[name] = f"{row[name]} and {shown}" if name in row else shown
