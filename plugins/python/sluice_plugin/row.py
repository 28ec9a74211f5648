"""Row by row: one object that moves over the batch. A column is decoded when the first row asks for it, once per batch."""

import base64

from .error import PluginError
from .layout import ALIASES, CORE, LETTERS, REST_LETTERS


class Row:
    """The row at `index`.

    Core columns are attributes (`severity`, `trace_id`, `duration_ns`, …); texts that are not there read as empty, severity and
    counts as 0, the rest as None.
    """

    def __init__(self, batch, writes):
        self.index = 0
        self._batch = batch
        self._core = {}
        self._attributes = {}
        self._changes = _Changes(batch, writes)

    @property
    def value(self):
        """Of a metric, whichever number was sent; the integer only if `value_int` is declared, too."""
        value = self._values("value")[self.index]
        return self.value_int if value is None and self._batch.declares("value_int") else value

    @value.setter
    def value(self, value):
        self._set_core("value", value)

    @property
    def service(self):
        """The resource's `service.name`; empty if there is none."""
        return self.resource("service.name", "")

    @service.setter
    def service(self, name):
        self.set_resource("service.name", name)

    @property
    def host(self):
        """The resource's `host.name`; empty if there is none."""
        return self.resource("host.name", "")

    @host.setter
    def host(self, name):
        self.set_resource("host.name", name)

    def attr(self, key, default=None):
        """The value of an attribute, of whatever type; `default` if there is none."""
        return self._attribute("attrs", key, default)

    def resource(self, key, default=None):
        """The value of an attribute of the resource."""
        return self._attribute("resource", key, default)

    def scope(self, key, default=None):
        """The value of an attribute of the instrumentation scope."""
        return self._attribute("scope", key, default)

    def column(self, name):
        """Any column by its name in the contract; None if the row has no value."""
        values = self._changes.current(ALIASES.get(name, name))
        return (self._batch.values(name) if values is None else values)[self.index]

    def set_attr(self, key, value):
        """Sets an attribute, whatever type it had."""
        self._set_attribute("attrs", key, value)

    def set_resource(self, key, value):
        self._set_attribute("resource", key, value)

    def set_scope(self, key, value):
        self._set_attribute("scope", key, value)

    def remove_attr(self, key):
        self._set_attribute("attrs", key, None)

    def remove_resource(self, key):
        self._set_attribute("resource", key, None)

    def remove_scope(self, key):
        self._set_attribute("scope", key, None)

    def finish(self, outcome):
        """Puts everything that was changed into the outcome."""
        return self._changes.finish(outcome)

    def _values(self, name):
        values = self._core.get(name)
        if values is None:
            values = self._core[name] = _core_values(self._batch, name)
        return values

    def _set_core(self, name, value):
        core = CORE[name]
        values = self._values(name)
        new = core.absent if value is None else value
        if values[self.index] == new:
            return
        # The format has null where such a value would say nothing; an empty body is a body all the same.
        nothing = value is None or (new == core.absent and name != "body")
        self._changes.set(name, self.index, None if nothing else _stored(name, core, new))
        values[self.index] = new

    def _attribute(self, group, key, default):
        values = self._attributes.get((group, key))
        if values is None:
            values = self._attributes[group, key] = _attribute_values(self._batch, group, key)
        value = values[self.index]
        return default if value is None else value

    def _set_attribute(self, group, key, value):
        before = self._attribute(group, key, None)
        if before is value or (before == value and type(before) is type(value)):
            return
        letter = None if value is None else self._changes.letter(group, key, value)
        if letter == "d":
            value = float(value)
        self._changes.clear(group, key, self.index, letter)
        if letter is not None:
            self._changes.set(f"{group}:{letter}:{key}", self.index, value)
        self._attributes[group, key][self.index] = value


def _core_property(name):
    def read(self):
        values = self._core.get(name)
        return (self._values(name) if values is None else values)[self.index]

    return property(read, lambda self, value: self._set_core(name, value))


for _name in CORE:
    if _name != "value":
        setattr(Row, _name, _core_property(_name))


def _core_values(batch, name):
    """The values of a core column as rows read them, in a list of its own."""
    core = CORE[name]
    column = batch.column(name)
    if column is None:
        return [core.absent] * batch.rows
    if core.type == "fixed":
        return ["" if value is None else value.hex() for value in column.values]
    if column.nulls is None or core.absent is None:
        return list(column.values)
    return [core.absent if value is None else value for value in column.values]


def _attribute_values(batch, group, key):
    """The values of an attribute over all its types, and from among the rare attributes, in a list of its own."""
    names = [name for name in (f"{group}:{letter}:{key}" for letter in LETTERS) if batch.declares(name)]
    rest = f"{group}:*"
    if not names and not batch.declares(rest):
        raise PluginError(f"reads the attribute `{group}.{key}`, which is not among its `reads`; add it there")
    columns = [batch.column(name) for name in names if f"{group}:n:{key}" != name]
    columns = [column.values for column in columns if column is not None]
    values = list(columns[0]) if columns else [None] * batch.rows
    for other in columns[1:]:
        values = [value if better is None else better for value, better in zip(values, other)]
    if batch.declares(rest) and batch.column(rest) is not None:
        for row, value in _rest_index(batch.column(rest)).get(key, {}).items():
            values[row] = value
    return values


def _rest_index(column):
    """Rare attributes of a group: by key, the values by row."""
    index = column.__dict__.get("rest_index")
    if index is None:
        index = column.rest_index = {}
        for row, entries in enumerate(column.values):
            for entry in entries or ():
                index.setdefault(entry["key"], {})[row] = _rest_value(entry["type"], entry["text"])
    return index


def _rest_value(type_name, text):
    letter = REST_LETTERS.get(type_name)
    if letter == "i":
        return int(text)
    if letter == "d":
        return float(text)
    if letter == "b":
        return text == "true"
    if letter == "y":
        return base64.b64decode(text)
    return None if letter == "n" else text


def _stored(name, core, value):
    """A value of a core column as its column holds it."""
    if core.type == "float64" and type(value) is int:
        return float(value)
    if core.type != "fixed":
        return value
    try:
        data = bytes.fromhex(value)
    except (TypeError, ValueError):
        data = b""
    if len(data) != core.width:
        raise PluginError(f"`{name}` is {core.width} bytes as {2 * core.width} hexadecimal digits")
    return data


class _Changes:
    """The columns that rows changed."""

    def __init__(self, batch, writes):
        self._batch = batch
        self._writes = writes
        self._columns = {}
        self._rest = {}

    def current(self, name):
        return self._columns.get(name)

    def set(self, name, row, value):
        values = self._columns.get(name)
        if values is None:
            if not self._writes.match(name):
                raise PluginError(
                    f"changes `{name}`, which is not among its `writes`; add it, or the name that stands for it"
                )
            values = self._columns[name] = list(self._batch.values(name))
        values[row] = value

    def letter(self, group, key, value):
        """The type of the column that such a value goes to."""
        letter = {str: "s", bool: "b", int: "i", float: "d", bytes: "y"}.get(type(value))
        if letter is None:
            raise PluginError(f"attribute `{key}` cannot be a value of type {type(value).__name__}")
        if letter == "i" and not self._writes.match(f"{group}:i:{key}") and self._writes.match(f"{group}:d:{key}"):
            return "d"
        return letter

    def clear(self, group, key, row, kept):
        """Takes away what the row has under this key, but for the column of type `kept`: one key has one value."""
        for letter in LETTERS:
            name = f"{group}:{letter}:{key}"
            if letter == kept:
                continue
            values = self._columns.get(name)
            if values is None and self._batch.declares(name) and self._batch.column(name) is not None:
                values = self._batch.values(name)
            if values is not None and values[row] is not None:
                self.set(name, row, None)
        rest = f"{group}:*"
        column = self._batch.column(rest) if self._batch.declares(rest) else None
        if column is not None and row in _rest_index(column).get(key, ()):
            self._rest.setdefault(rest, {}).setdefault(row, set()).add(key)

    def finish(self, outcome):
        for name, values in self._columns.items():
            outcome.column(name, values)
        for name, gone in self._rest.items():
            lists = list(self._batch.values(name))
            for row, keys in gone.items():
                lists[row] = [entry for entry in lists[row] if entry["key"] not in keys]
            outcome.column(name, lists)
        return outcome
