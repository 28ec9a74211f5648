"""The little of FlatBuffers that Arrow's metadata needs: tables, vectors, texts and structs of two longs.

Every place read comes from the bytes themselves, so each access is checked: `struct` refuses to read outside of them, and lengths
are compared with what is there before anything loops over them.
"""

import struct

_U16 = struct.Struct("<H")
_I16 = struct.Struct("<h")
_I32 = struct.Struct("<i")
_U32 = struct.Struct("<I")
_I64 = struct.Struct("<q")
_MAX_LENGTH = 0x7FFF_FFFF


class Malformed(Exception):
    """A place or a length outside of the bytes."""


class Table:
    """A table in bytes. Fields are named by their number in Arrow's schema files; an absent field reads as its default."""

    def __init__(self, data, at):
        self._data = data
        self._at = at
        self._fields = at - self._read(_I32, at)
        self._fields_end = self._fields + self._read(_U16, self._fields)

    @classmethod
    def root(cls, data):
        table = cls.__new__(cls)
        table._data = data
        return cls(data, table._read(_U32, 0))

    def _read(self, kind, at):
        # A negative place would count from the end.
        if at < 0 or at + kind.size > len(self._data):
            raise Malformed("cut off")
        return kind.unpack_from(self._data, at)[0]

    def _place(self, field):
        """Where the field lies; 0 if it is absent."""
        slot = self._fields + 4 + 2 * field
        if slot >= self._fields_end:
            return 0
        offset = self._read(_U16, slot)
        return self._at + offset if offset else 0

    def _target(self, field):
        """Where the field points to; 0 if it is absent."""
        place = self._place(field)
        return place + self._read(_U32, place) if place else 0

    def _scalar(self, field, kind):
        place = self._place(field)
        return self._read(kind, place) if place else 0

    def byte(self, field):
        place = self._place(field)
        if place >= len(self._data):
            raise Malformed("cut off")
        return self._data[place] if place else 0

    def short(self, field):
        return self._scalar(field, _I16)

    def int(self, field):
        return self._scalar(field, _I32)

    def long(self, field):
        return _length(self._scalar(field, _I64))

    def has(self, field):
        return self._place(field) != 0

    def text(self, field):
        target = self._target(field)
        if not target:
            return ""
        length = self._count(target, 1)
        return str(self._data[target + 4 : target + 4 + length], "utf-8")

    def table(self, field):
        target = self._target(field)
        return Table(self._data, target) if target else None

    def tables(self, field):
        target = self._target(field)
        if not target:
            return []
        places = range(target + 4, target + 4 + 4 * self._count(target, 4), 4)
        return [Table(self._data, place + self._read(_U32, place)) for place in places]

    def pairs(self, field):
        """A vector of structs of two longs each."""
        target = self._target(field)
        if not target:
            return []
        count = self._count(target, 16)
        longs = struct.unpack_from(f"<{2 * count}q", self._data, target + 4)
        return [(_length(longs[i]), _length(longs[i + 1])) for i in range(0, 2 * count, 2)]

    def _count(self, target, bytes_each):
        count = self._read(_U32, target)
        if target + 4 + count * bytes_each > len(self._data):
            raise Malformed("cut off")
        return count


def _length(long):
    if not 0 <= long <= _MAX_LENGTH:
        raise Malformed(f"a length of {long}")
    return long


# What `encode` writes: a table is a list of (number, kind, value), where kinds are "b", "h", "i", "q" as `struct` has them, and
# "ref" to a `bytes` text, a table, a `Tables` or a `Pairs`; fields whose value is None are left out.
class Tables(tuple):
    """A vector of tables."""


class Pairs(tuple):
    """A vector of structs of two longs."""


_WIDTHS = {"b": 1, "h": 2, "i": 4, "q": 8, "ref": 4}


def encode(root) -> bytes:
    """A buffer whose root is this table, as long as a multiple of 8. Parents come before what they point to."""
    out = bytearray(4)
    _U32.pack_into(out, 0, _write(out, root))
    _align(out, 8)
    return bytes(out)


def _align(out, to):
    out.extend(bytes(-len(out) % to))


def _write(out, node):
    if isinstance(node, bytes):
        return _write_text(out, node)
    if isinstance(node, Pairs):
        return _write_pairs(out, node)
    return _write_tables(out, node) if isinstance(node, Tables) else _write_table(out, node)


def _write_table(out, fields):
    # Wide fields first, so that none needs padding but the first.
    fields = sorted((field for field in fields if field[2] is not None), key=lambda field: -_WIDTHS[field[1]])
    slots = max((number + 1 for number, _, _ in fields), default=0)
    _align(out, 2)
    index = len(out)
    out.extend(bytes(4 + 2 * slots))
    _align(out, 8)
    at = len(out)
    offset = 8 if fields and _WIDTHS[fields[0][1]] == 8 else 4
    places = []
    for number, kind, value in fields:
        _U16.pack_into(out, index + 4 + 2 * number, offset)
        places.append((at + offset, kind, value))
        offset += _WIDTHS[kind]
    out.extend(bytes(offset))
    _I32.pack_into(out, at, at - index)
    _U16.pack_into(out, index, 4 + 2 * slots)
    _U16.pack_into(out, index + 2, offset)
    for place, kind, value in places:
        if kind == "ref":
            _U32.pack_into(out, place, _write(out, value) - place)
        else:
            struct.pack_into(f"<{kind}", out, place, value)
    return at


def _write_text(out, text):
    _align(out, 4)
    at = len(out)
    out.extend(_U32.pack(len(text)) + text + b"\0")
    return at


def _write_tables(out, items):
    _align(out, 4)
    at = len(out)
    out.extend(_U32.pack(len(items)) + bytes(4 * len(items)))
    for number, item in enumerate(items):
        place = at + 4 + 4 * number
        _U32.pack_into(out, place, _write(out, item) - place)
    return at


def _write_pairs(out, items):
    # The structs behind the length have to lie at a multiple of 8.
    _align(out, 8)
    out.extend(bytes(4))
    at = len(out)
    out.extend(_U32.pack(len(items)))
    for pair in items:
        out.extend(struct.pack("<qq", *pair))
    return at
