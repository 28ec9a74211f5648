"""Arrow IPC streams of the few types that batches have: from bytes to columns and back."""

import struct

from .column import (
    CODES,
    KEY_CODES,
    BinaryColumn,
    BoolColumn,
    DictColumn,
    Field,
    FixedColumn,
    ListColumn,
    NumberColumn,
    StructColumn,
    TextColumn,
)
from .error import PluginError
from .flatbuffers import Malformed, Pairs, Table, Tables, encode

_CONTINUATION = 0xFFFF_FFFF
_END = b"\xff\xff\xff\xff\0\0\0\0"
_VERSION_5 = 4
_ALIGNMENT = 8
# Header types of a message.
_SCHEMA = 1
_DICTIONARY_BATCH = 2
_RECORD_BATCH = 3
# Fields of one schema, nested ones included; a batch has at most 512 columns of attributes and some 60 others.
_MAX_FIELDS = 4096
# A list of structs of texts.
_MAX_DEPTH = 4


def read(data):
    """Number of rows and columns of the first record batch; whatever is not such a stream is refused."""
    try:
        return _read_stream(memoryview(data))
    except (Malformed, struct.error, UnicodeDecodeError) as error:
        raise PluginError(f"batch: {error if isinstance(error, Malformed) else 'malformed'}") from None


def _read_stream(data):
    dictionaries = {}
    fields = None
    at = 0
    while at + 8 <= len(data):
        mark, length = struct.unpack_from("<II", data, at)
        if mark != _CONTINUATION:
            raise Malformed("not an Arrow IPC stream")
        if length == 0:
            break
        message = Table.root(_part(data, at + 8, length))
        at += 8 + length
        body = _part(data, at, message.long(3))
        at += len(body)
        header = message.table(2)
        kind = message.byte(1)
        if header is None:
            raise Malformed("a message without a header")
        if kind == _SCHEMA:
            if fields is not None or header.short(0) != 0:
                raise Malformed("a second schema, or one of big-endian numbers")
            fields = _read_fields(header.tables(1), 0, [_MAX_FIELDS])
        elif kind == _DICTIONARY_BATCH:
            values = header.table(1)
            if header.byte(2) or values is None:
                raise Malformed("a delta dictionary, or none")
            dictionaries[header.long(0)] = _Columns(values, body, {}).next(Field("dictionary", "utf8"))
        elif kind == _RECORD_BATCH:
            if fields is None:
                raise Malformed("no schema before the rows")
            columns = _Columns(header, body, dictionaries)
            rows = header.long(0)
            return rows, [columns.next(field, rows) for field in fields]
        else:
            raise Malformed("a message of another kind")
    raise Malformed("no rows")


def _part(data, start, length):
    if start + length > len(data):
        raise Malformed("cut off")
    return data[start : start + length]


def _read_fields(tables, depth, budget):
    budget[0] -= len(tables)
    if depth > _MAX_DEPTH or budget[0] < 0:
        raise Malformed(f"fields nested too deep, or more than {_MAX_FIELDS}")
    return tuple(_read_field(table, depth, budget) for table in tables)


def _read_field(table, depth, budget):
    name = table.text(0)
    detail = table.table(3)
    kind = _type_name(table.byte(2), detail)
    if kind is None:
        raise Malformed(f"column `{name}` has a type that batches do not have")
    children = _read_fields(table.tables(5), depth + 1, budget) if kind in ("list", "struct") else ()
    if kind == "list" and len(children) != 1:
        raise Malformed(f"column `{name}` is a list of nothing")
    keys, identity = None, 0
    dictionary = table.table(4)
    if dictionary is not None:
        index = dictionary.table(1)
        width = index.int(0) if index is not None and not index.byte(1) else 0
        if kind != "utf8" or width not in (16, 32):
            raise Malformed(f"column `{name}` has a dictionary of another type")
        keys, identity = f"uint{width}", dictionary.long(0)
    width = detail.int(0) if kind == "fixed" else 0
    return Field(name, kind, bool(table.byte(1)), keys, width, children, identity)


_TYPE_NAMES = {4: "binary", 5: "utf8", 6: "bool", 12: "list", 13: "struct"}


def _type_name(number, detail):
    if number in _TYPE_NAMES:
        return _TYPE_NAMES[number]
    if detail is None:
        return None
    if number == 2 and detail.int(0) in (32, 64):
        return f"{'int' if detail.byte(1) else 'uint'}{detail.int(0)}"
    if number == 3 and detail.short(0) == 2:
        return "float64"
    return "fixed" if number == 15 and detail.int(0) > 0 else None


class _Columns:
    """The columns of one message, taken one after another."""

    def __init__(self, header, body, dictionaries):
        if header.has(3):
            raise Malformed("compressed")
        self._nodes = iter(header.pairs(1))
        self._buffers = iter(header.pairs(2))
        self._body = body
        self._dictionaries = dictionaries

    def next(self, field, rows=None):
        """`rows`: how many the column must have, if that is known."""
        node = next(self._nodes, None)
        if node is None or (rows is not None and node[0] != rows):
            raise Malformed(f"column `{field.name}` is missing or has another number of rows")
        length, null_count = node
        bits = self._bytes()
        nulls = _exactly(bits, (length + 7) // 8) if null_count else None
        kind = field.type
        if kind == "utf8" and field.keys:
            keys = self._numbers(KEY_CODES[field.keys], length)
            # A column of nothing but nulls needs no dictionary.
            empty = TextColumn(Field(field.name, "utf8"), 0, None, memoryview(bytes(4)).cast("i"), b"")
            return DictColumn(field, length, nulls, keys, self._dictionaries.get(field.dictionary, empty))
        if kind in ("utf8", "binary"):
            offsets = self._offsets(length)
            data = self._bytes()
            if offsets[0] < 0 or offsets[-1] > len(data):
                raise Malformed("offsets beyond the values")
            return (TextColumn if kind == "utf8" else BinaryColumn)(field, length, nulls, offsets, data)
        if kind in CODES:
            return NumberColumn(field, length, nulls, self._numbers(CODES[kind], length))
        if kind == "bool":
            return BoolColumn(field, length, nulls, _exactly(self._bytes(), (length + 7) // 8))
        if kind == "fixed":
            return FixedColumn(field, length, nulls, _exactly(self._bytes(), length * field.width))
        if kind == "list":
            return ListColumn(field, length, nulls, self._offsets(length), self.next(field.children[0]))
        return StructColumn(field, length, nulls, [self.next(child, length) for child in field.children])

    def _bytes(self):
        place = next(self._buffers, None)
        if place is None:
            raise Malformed("a buffer is missing")
        return _part(self._body, *place)

    def _numbers(self, code, length):
        return _exactly(self._bytes(), length * struct.calcsize(code)).cast(code)

    def _offsets(self, length):
        # No offsets at all are allowed where there are no rows.
        if length == 0:
            self._bytes()
            return memoryview(bytes(4)).cast("i")
        return self._numbers("i", length + 1)


def _exactly(data, length):
    if len(data) < length:
        raise Malformed("a buffer is too short")
    return data[:length]


def write(columns, rows) -> bytes:
    """A stream with one record batch of these columns, which all have `rows` rows."""
    body = _Body()
    dictionaries = []
    for column in columns:
        values = body.column(column)
        if values is not None:
            dictionary = _Body()
            dictionary.column(values)
            dictionaries.append((dictionary, len(values)))
    numbers = iter(range(len(dictionaries)))
    fields = [_field_table(column.field, next(numbers) if column.field.keys else None) for column in columns]
    parts = _message(_SCHEMA, [(1, "ref", Tables(fields))], 0)
    for number, (dictionary, length) in enumerate(dictionaries):
        parts += dictionary.message(length, number)
    return b"".join([*parts, *body.message(rows, None), _END])


def _field_table(field, dictionary):
    number, detail = _type_table(field)
    encoding = None
    if dictionary is not None:
        keys = [(0, "i", 16 if field.keys == "uint16" else 32)]
        encoding = [(0, "q", dictionary), (1, "ref", keys)]
    return [
        (0, "ref", field.name.encode("utf-8")),
        (1, "b", int(field.nullable)),
        (2, "b", number),
        (3, "ref", detail),
        (4, "ref", encoding),
        (5, "ref", Tables(_field_table(child, None) for child in field.children)),
    ]


def _type_table(field):
    if field.type == "float64":
        return 3, [(0, "h", 2)]
    if field.type == "fixed":
        return 15, [(0, "i", field.width)]
    if field.type in CODES:
        signed = field.type.startswith("int")
        return 2, [(0, "i", int(field.type[-2:])), (1, "b", int(signed))]
    return {name: number for number, name in _TYPE_NAMES.items()}[field.type], []


def _message(kind, header, body_length):
    meta = encode([(0, "h", _VERSION_5), (1, "b", kind), (2, "ref", header), (3, "q", body_length)])
    return [struct.pack("<II", _CONTINUATION, len(meta)), meta]


class _Body:
    """The buffers of one message."""

    def __init__(self):
        self._nodes = []
        self._places = []
        self._parts = []
        self._length = 0

    def column(self, column):
        """Takes one column; answers the values of its dictionary, which go into a message of their own."""
        return column.write(self)

    def node(self, column):
        """Length and nulls of the column whose buffers follow."""
        nulls = column.nulls
        # Bits behind the last row may be anything.
        present = column.length if nulls is None else (int.from_bytes(nulls, "little") & (1 << column.length) - 1).bit_count()
        self._nodes.append((column.length, column.length - present))
        self.buffer(b"" if nulls is None else nulls)

    def buffer(self, values):
        data = memoryview(values).cast("B")
        padding = -len(data) % _ALIGNMENT
        self._places.append((self._length, len(data)))
        self._parts += [data, bytes(padding)]
        self._length += len(data) + padding

    def message(self, rows, dictionary):
        records = [(0, "q", rows), (1, "ref", Pairs(self._nodes)), (2, "ref", Pairs(self._places))]
        if dictionary is None:
            return _message(_RECORD_BATCH, records, self._length) + self._parts
        header = [(0, "q", dictionary), (1, "ref", records)]
        return _message(_DICTIONARY_BATCH, header, self._length) + self._parts
