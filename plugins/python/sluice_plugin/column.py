"""Columns as they lie in an Arrow IPC stream. A column decodes nothing before somebody asks for a value."""

from array import array
from dataclasses import dataclass, replace
from functools import cached_property

from .error import PluginError

# Arrays of the standard library by Arrow type; "i" and "I" have 4 bytes, "q" and "Q" have 8 wherever Python runs.
CODES = {"int32": "i", "uint32": "I", "int64": "q", "uint64": "Q", "float64": "d"}
KEY_CODES = {"uint16": "H", "uint32": "I"}


@dataclass(frozen=True)
class Field:
    """Name and Arrow type of a column; `keys` is the type of the keys if it has a dictionary."""

    name: str
    type: str
    nullable: bool = True
    keys: str | None = None
    width: int = 0
    children: tuple["Field", ...] = ()
    dictionary: int = 0


class Column:
    """A column of a batch. `nulls` has one bit per row, set where there is a value; None means that every row has one."""

    def __init__(self, field, length, nulls=None):
        self.field = field
        self.length = length
        self.nulls = nulls

    def __len__(self):
        return self.length

    @property
    def type(self):
        return self.field.type

    def renamed(self, field):
        """The same values under another name."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, field=field)
        return copy

    @cached_property
    def present(self):
        """By row, whether there is a value; None if all have one."""
        if self.nulls is None:
            return None
        return [byte >> bit & 1 for byte in self.nulls for bit in range(8)][: self.length]

    def get(self, row):
        """The value of a row, or None."""
        return self.values[row]

    @cached_property
    def values(self):
        """All values by row, None where there is none. Do not change it."""
        values = self.decode()
        if self.present is None:
            return values
        return [value if present else None for value, present in zip(values, self.present)]


class NumberColumn(Column):
    """int32, int64, uint32, uint64 and float64."""

    def __init__(self, field, length, nulls, numbers):
        super().__init__(field, length, nulls)
        self.numbers = numbers

    def decode(self):
        return self.numbers.tolist()

    def write(self, body):
        body.node(self)
        body.buffer(self.numbers)


class BoolColumn(Column):
    def __init__(self, field, length, nulls, bits):
        super().__init__(field, length, nulls)
        self.bits = bits

    def decode(self):
        return [bool(byte >> bit & 1) for byte in self.bits for bit in range(8)][: self.length]

    def write(self, body):
        body.node(self)
        body.buffer(self.bits)


class TextColumn(Column):
    """Text without a dictionary."""

    def __init__(self, field, length, nulls, offsets, data):
        super().__init__(field, length, nulls)
        self.offsets = offsets
        self.data = data

    def decode(self):
        data = bytes(self.data)
        ends = self.offsets.tolist()
        if data.isascii():
            text = data.decode("ascii")
            return [text[start:end] for start, end in zip(ends, ends[1:])]
        try:
            return [data[start:end].decode("utf-8") for start, end in zip(ends, ends[1:])]
        except UnicodeDecodeError:
            raise PluginError("batch: a text that is not UTF-8") from None

    def map(self, change):
        """The column with every text replaced by what `change` makes of it."""
        return text_column(self.field, [None if text is None else change(text) for text in self.values])

    def write(self, body):
        body.node(self)
        body.buffer(self.offsets)
        body.buffer(self.data)


class DictColumn(Column):
    """Text with a dictionary: each different text lies there once."""

    def __init__(self, field, length, nulls, keys, dictionary):
        super().__init__(field, length, nulls)
        self.keys = keys
        self.dictionary = dictionary

    def decode(self):
        texts = self.dictionary.values
        # Keys of rows without a value may be anything.
        known = len(texts)
        return [texts[key] if key < known else None for key in self.keys.tolist()]

    def map(self, change):
        """The column with every text replaced by what `change` makes of it, which is called once for each different text."""
        return DictColumn(self.field, self.length, self.nulls, self.keys, self.dictionary.map(change))

    def write(self, body):
        body.node(self)
        body.buffer(self.keys)
        return self.dictionary


class BinaryColumn(Column):
    """Bytes of any length."""

    def __init__(self, field, length, nulls, offsets, data):
        super().__init__(field, length, nulls)
        self.offsets = offsets
        self.data = data

    def decode(self):
        ends = self.offsets.tolist()
        return [bytes(self.data[start:end]) for start, end in zip(ends, ends[1:])]

    def write(self, body):
        body.node(self)
        body.buffer(self.offsets)
        body.buffer(self.data)


class FixedColumn(Column):
    """Bytes of one length: trace and span ids."""

    def __init__(self, field, length, nulls, data):
        super().__init__(field, length, nulls)
        self.data = data

    def decode(self):
        width = self.field.width
        return [bytes(self.data[at : at + width]) for at in range(0, self.length * width, width)]

    def write(self, body):
        body.node(self)
        body.buffer(self.data)


class ListColumn(Column):
    """Lists of another column's values."""

    def __init__(self, field, length, nulls, offsets, items):
        super().__init__(field, length, nulls)
        self.offsets = offsets
        self.items = items

    def decode(self):
        ends = self.offsets.tolist()
        items = self.items.values
        return [items[start:end] for start, end in zip(ends, ends[1:])]

    def write(self, body):
        body.node(self)
        body.buffer(self.offsets)
        body.column(self.items)


class StructColumn(Column):
    """Rows of named values."""

    def __init__(self, field, length, nulls, columns):
        super().__init__(field, length, nulls)
        self.columns = columns

    def decode(self):
        names = [column.field.name for column in self.columns]
        rows = zip(*(column.values for column in self.columns)) if names else [()] * self.length
        return [dict(zip(names, row)) for row in rows]

    def write(self, body):
        body.node(self)
        for column in self.columns:
            body.column(column)


def column_of(field, values):
    """A column of these values, None where a row has none. Values of another type are refused."""
    return _MAKERS[field.type](field, values)


def _wrong(field, row, value):
    # The value itself stays out of the text: it may be what a mask is there to hide.
    return PluginError(
        f"column `{field.name}` holds {field.type}; row {row} was given {type(value).__name__} that does not fit"
    )


def bits_of(flags):
    """One bit for each flag, least significant first."""
    digits = "".join(["1" if flag else "0" for flag in reversed(flags)])
    return int(digits or "0", 2).to_bytes((len(flags) + 7) // 8, "little")


def _nulls(values):
    return bits_of([value is not None for value in values]) if None in values else None


def _checked(field, values, *types):
    for row, value in enumerate(values):
        if value is not None and type(value) not in types:
            raise _wrong(field, row, value)


def offsets_of(lengths):
    offsets = array("i", [0])
    end = 0
    for length in lengths:
        end += length
        offsets.append(end)
    return offsets


# A dictionary costs a look-up per row; it pays as long as texts repeat. Rows looked at before that is decided.
_DICTIONARY_TRIAL = 256
_MAX_UINT16_KEYS = 65_536


def text_column(field, values):
    _checked(field, values, str)
    if field.keys is not None:
        column = _dict_column(field, values)
        if column is not None:
            return column
    # Half a surrogate pair, which a str can have, becomes a question mark.
    encoded = [b"" if value is None else value.encode("utf-8", "replace") for value in values]
    offsets = offsets_of(map(len, encoded))
    return TextColumn(replace(field, keys=None), len(values), _nulls(values), offsets, b"".join(encoded))


def _dict_column(field, values):
    """None if so many texts differ that a dictionary would not pay, or if there is nothing to put into it."""
    trial = set(values[:_DICTIONARY_TRIAL])
    if 2 * len(trial) > _DICTIONARY_TRIAL:
        return None
    seen = {}
    keys = [0 if value is None else seen.setdefault(value, len(seen)) for value in values]
    if not seen or (2 * len(seen) > len(values) and len(values) > 1):
        return None
    width = "uint16" if len(seen) <= _MAX_UINT16_KEYS else "uint32"
    dictionary = text_column(replace(field, keys=None), list(seen))
    keys = array(KEY_CODES[width], keys)
    return DictColumn(replace(field, keys=width), len(values), _nulls(values), keys, dictionary)


def _number_column(field, values):
    types = (float, int) if field.type == "float64" else (int,)
    _checked(field, values, *types)
    try:
        numbers = array(CODES[field.type], [0 if value is None else value for value in values])
    except OverflowError:
        raise PluginError(f"column `{field.name}` holds {field.type}; a value is beyond that") from None
    return NumberColumn(field, len(values), _nulls(values), numbers)


def _bool_column(field, values):
    _checked(field, values, bool)
    return BoolColumn(field, len(values), _nulls(values), bits_of([value is True for value in values]))


def _binary_column(field, values):
    _checked(field, values, bytes)
    offsets = offsets_of(0 if value is None else len(value) for value in values)
    return BinaryColumn(field, len(values), _nulls(values), offsets, b"".join(value or b"" for value in values))


def _fixed_column(field, values):
    _checked(field, values, bytes)
    for row, value in enumerate(values):
        if value is not None and len(value) != field.width:
            raise _wrong(field, row, value)
    empty = bytes(field.width)
    return FixedColumn(field, len(values), _nulls(values), b"".join(empty if value is None else value for value in values))


def _list_column(field, values):
    _checked(field, values, list)
    offsets = offsets_of(0 if value is None else len(value) for value in values)
    items = column_of(field.children[0], [item for value in values if value for item in value])
    return ListColumn(field, len(values), _nulls(values), offsets, items)


def _struct_column(field, values):
    _checked(field, values, dict)
    columns = [column_of(child, [value and value.get(child.name) for value in values]) for child in field.children]
    return StructColumn(field, len(values), _nulls(values), columns)


_MAKERS = {
    "utf8": text_column,
    "bool": _bool_column,
    "binary": _binary_column,
    "fixed": _fixed_column,
    "list": _list_column,
    "struct": _struct_column,
    **dict.fromkeys(CODES, _number_column),
}
