"""The batch as a plugin sees it: the declared columns, by name."""

from dataclasses import replace

from .error import PluginError
from .ipc import read
from .layout import ALIASES, field_of


class Batch:
    """From the bytes of the host. `reads`: what the plugin declared; asking for anything else is a mistake and is refused."""

    def __init__(self, data, reads):
        self.rows, columns = read(data)
        self._columns = {column.field.name: column for column in columns}
        self._reads = reads

    def __len__(self):
        return self.rows

    @property
    def names(self):
        """Names of the columns that this batch has."""
        return list(self._columns)

    def declares(self, name):
        """Whether the plugin declared it."""
        return self._reads.match(name)

    def column(self, name):
        """A column; None if no row of this batch has a value for it."""
        full = ALIASES.get(name, name)
        column = self._columns.get(full)
        if column is None and not self._reads.match(full):
            raise PluginError(f"reads `{name}`, which is not among its `reads`; add it there")
        return column

    def values(self, name):
        """The values of a column by row, None where there is none. Do not change them."""
        column = self.column(name)
        return [None] * self.rows if column is None else column.values

    def field_of(self, name):
        """The field under which a column of this name is given back."""
        column = self._columns.get(name)
        usual = field_of(name)
        # Whatever the host's dictionary was, the new values decide whether one pays.
        return replace(column.field, keys=usual.keys if usual else None) if column else usual
