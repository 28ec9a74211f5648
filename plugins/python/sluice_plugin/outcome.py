"""What a plugin answers."""

import math
import re
from dataclasses import replace

from .column import Column, bits_of, column_of
from .error import PluginError
from .ipc import write
from .layout import ALIASES

_REASON = re.compile(r"[A-Za-z0-9_.\- ]{1,64}")
_DEFAULT_REASON = "filtered"


class Decision:
    """What to do with a row: made by `drop` and `quarantine`; True keeps it."""

    __slots__ = ("action", "reason")

    def __init__(self, action, reason):
        if not isinstance(reason, str) or not _REASON.fullmatch(reason):
            raise PluginError("a reason must be 1 to 64 letters, digits, `_`, `.`, `-` or spaces")
        self.action = action
        self.reason = reason


def drop(reason=_DEFAULT_REASON):
    """The row goes; it is counted under this reason, which should be one of few."""
    return Decision("drop", reason)


def quarantine(reason):
    """The row is set aside: it is stored, but apart from the others."""
    return Decision("quarantine", reason)


class Outcome:
    """What became of a batch; a new one says: unchanged."""

    def __init__(self, batch):
        self._batch = batch
        self._dropped = set()
        self._drops = {}
        self._aside = {}
        self._columns = {}
        self._weight = None

    def keep(self, test, reason=_DEFAULT_REASON):
        """Keeps the rows for which `test(row)` is true; the others are counted under `reason`."""
        return self._apply(drop(reason), lambda row: not test(row))

    def quarantine(self, test, reason):
        """Sets the rows aside for which `test(row)` is true."""
        return self._apply(quarantine(reason), test)

    def _apply(self, decision, test):
        for row in range(self._batch.rows):
            if row not in self._dropped and row not in self._aside and test(row):
                self.decide(row, decision)
        return self

    def decide(self, row, decision):
        """What was decided about one row."""
        if decision is False:
            decision = _FILTERED
        elif not isinstance(decision, Decision):
            raise PluginError("a row is kept with True, or goes with False, drop(…) or quarantine(…)")
        if decision.action == "drop":
            self._dropped.add(row)
            self._drops[decision.reason] = self._drops.get(decision.reason, 0) + 1
        else:
            self._aside[row] = decision.reason

    def column(self, name, values):
        """Replaces or adds a column: a `Column`, or values by row with None where there is none."""
        full = ALIASES.get(name, name)
        field = self._batch.field_of(full)
        if field is None:
            raise PluginError(f"`{name}` is no column")
        column = _renamed(values, field) if isinstance(values, Column) else column_of(field, values)
        if len(column) != self._batch.rows:
            raise PluginError(f"column `{name}` of {len(column)} rows for a batch of {self._batch.rows}")
        self._columns[full] = column
        return self

    def weight(self, factor):
        """Every row that stays stands for this many times as many events as before."""
        if not (math.isfinite(factor) and factor >= 1):
            raise PluginError("a weight factor must be a number of at least 1")
        self._weight = float(factor)
        return self

    def encode(self, kind, writes):
        """Selection, columns, weight, drops and quarantine as the contract has them."""
        for name in self._columns:
            if not writes.match(name):
                raise PluginError(f"writes `{name}`, which is not among its `writes`; add it there")
        if self._weight is not None and not writes.match("weight"):
            raise PluginError("a weight factor needs `weight` among the `writes`")
        if self._aside and kind == "mask":
            raise PluginError("a mask may not quarantine: the rows would be stored unmasked")
        rows = range(self._batch.rows)
        return {
            "selection": bits_of([row not in self._dropped for row in rows]) if self._dropped else None,
            "columns": write(list(self._columns.values()), self._batch.rows) if self._columns else None,
            "weight": self._weight,
            "drops": list(self._drops.items()),
            "quarantine": (bits_of([row in self._aside for row in rows]), self._reason()) if self._aside else None,
        }

    def _reason(self):
        """A batch has one reason in the contract."""
        first, *others = dict.fromkeys(self._aside.values())
        return f"{first[:48]} and {len(others)} more" if others else first


_FILTERED = drop()


def _renamed(column, field):
    if column.field.name == field.name:
        return column
    if column.type != field.type:
        raise PluginError(f"column `{field.name}` holds {field.type}, not {column.type}")
    return column.renamed(replace(column.field, name=field.name, nullable=field.nullable))
