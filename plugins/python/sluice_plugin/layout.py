"""The columns of a batch by name, as crates/wire/FORMAT.md has them."""

import re
from dataclasses import dataclass
from typing import Any

from .column import Field
from .error import PluginError, suggestion


@dataclass(frozen=True)
class Core:
    """A core column: its Arrow type, and what a row reads where the format says that null stands for it."""

    type: str
    absent: Any = None
    width: int = 0
    item: str | None = None


_TEXTS = """signal resource_schema_url scope_name scope_version scope_schema_url entity_refs name body body_type severity_text kind
    status status_message trace_state span_events links unit description metadata metric_type temporality quantiles exemplars
    duplicate_attrs quarantined_by quarantine_reason""".split()
_COUNTS = """resource_dropped_attributes scope_dropped_attributes flags dropped_attributes dropped_events dropped_links""".split()

CORE = {
    **dict.fromkeys(_TEXTS, Core("utf8", "")),
    **dict.fromkeys(_COUNTS, Core("uint32", 0)),
    **dict.fromkeys(["time", "observed_time", "start_time", "duration_ns", "value_int"], Core("int64")),
    **dict.fromkeys(["value", "sum", "min", "max", "zero_threshold"], Core("float64")),
    **dict.fromkeys(["scale", "positive_offset", "negative_offset"], Core("int32")),
    **dict.fromkeys(["count", "zero_count"], Core("uint64")),
    **dict.fromkeys(["buckets", "positive_buckets", "negative_buckets"], Core("list", item="uint64")),
    **dict.fromkeys(["span_id", "parent_span_id"], Core("fixed", "", 8)),
    "trace_id": Core("fixed", "", 16),
    "bounds": Core("list", item="float64"),
    "severity": Core("int32", 0),
    "weight": Core("float64", 1.0),
    "time_unset": Core("bool", False),
    "monotonic": Core("bool"),
}

# Short names of columns that everybody asks for.
ALIASES = {"service": "resource:s:service.name", "host": "resource:s:host.name", "duration": "duration_ns"}

_ATTRIBUTE_TYPES = {"s": "utf8", "i": "int64", "d": "float64", "b": "bool", "y": "binary", "j": "utf8", "n": "bool"}
LETTERS = tuple(_ATTRIBUTE_TYPES)
_SCALARS = ("s", "i", "d", "b")
# Letters of the types that entries of a rest column have.
REST_LETTERS = {
    "string": "s",
    "int": "i",
    "double": "d",
    "bool": "b",
    "bytes": "y",
    "array": "j",
    "kvlist": "j",
    "null": "n",
}
_READ_ONLY = ("signal", "quarantined_by", "quarantine_reason")
_ATTRIBUTE = re.compile(r"(attrs|resource|scope):([sidbyjn]):(.*)", re.DOTALL)
_BY_KEY = re.compile(r"(attrs|resource|scope)\.(.+)", re.DOTALL)
_RESTS = ("attrs:*", "resource:*", "scope:*")


def field_of(name):
    """The field that a column of this name has; None for a name that no column has."""
    attribute = _ATTRIBUTE.fullmatch(name)
    if attribute:
        letter = attribute[2]
        return Field(name, _ATTRIBUTE_TYPES[letter], keys="uint16" if letter == "s" else None)
    core = CORE.get(name)
    if core is None:
        return None
    keys = "uint16" if core.type == "utf8" else None
    children = (Field("item", core.item),) if core.item else ()
    return Field(name, core.type, name not in ("signal", "time"), keys, core.width, children)


class Patterns:
    """Declared columns: names, or patterns in which `*` stands for any text."""

    def __init__(self, names):
        # The rest columns are called `<group>:*`; asking for them does not ask for the whole group.
        self._exact = {name for name in names if "*" not in name or name in _RESTS}
        globs = [".*".join(map(re.escape, name.split("*"))) for name in names if name not in self._exact]
        self._glob = re.compile("|".join(globs), re.DOTALL) if globs else None

    def match(self, name):
        return name in self._exact or (self._glob is not None and self._glob.fullmatch(name) is not None)


def declared(names, which):
    """The columns that a plugin declared.

    `service` and `host` are attributes of the resource; `attrs.KEY`, `resource.KEY` and `scope.KEY` are all columns of scalars of
    that key. With each of these comes the rest column of the group, where rare keys lie.
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise PluginError(f"`{which}` must be a list of column names")
    out = {}
    for name in names:
        by_key = _BY_KEY.fullmatch(name)
        if by_key:
            group, key = by_key.groups()
            out |= dict.fromkeys([f"{group}:{letter}:{key}" for letter in _SCALARS] + [f"{group}:*"])
            continue
        column = ALIASES.get(name, name)
        _check(column, which)
        out[column] = None
        attribute = _ATTRIBUTE.fullmatch(column)
        if attribute and column != name:
            out[f"{attribute[1]}:*"] = None
    return list(out)


def _check(name, which):
    if which == "writes" and name in _READ_ONLY:
        raise PluginError(f"no plugin may write `{name}`")
    if "*" in name or name in CORE or _ATTRIBUTE.fullmatch(name):
        return
    hint = suggestion(name, [*CORE, *ALIASES]) or "; attributes are declared as `attrs.KEY`, `resource.KEY` or `scope.KEY`"
    raise PluginError(f"`{which}` names `{name}`, which is no column{hint}")
