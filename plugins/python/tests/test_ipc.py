"""Streams of our own reader and writer against Arrow's own software, and against damage."""

import io
import unittest

import pyarrow
from support import ROWS, VALUES, stream

from sluice_plugin import PluginError
from sluice_plugin.ipc import read


class Streams(unittest.TestCase):
    def test_what_we_write_is_what_arrow_reads(self):
        table = pyarrow.ipc.open_stream(stream()).read_all()
        table.validate(full=True)
        self.assertEqual(table.num_rows, ROWS)
        for name, values in VALUES.items():
            self.assertEqual(table.column(name).to_pylist(), values, name)
        types = {field.name: str(field.type) for field in table.schema}
        self.assertEqual(types["signal"], "dictionary<values=string, indices=uint16, ordered=0>")
        self.assertEqual(types["body"], "string", "no dictionary where nothing repeats")
        self.assertEqual(types["count"], "uint64")
        self.assertEqual(types["trace_id"], "fixed_size_binary[16]")
        self.assertEqual(types["bounds"], "list<item: double>")

    def test_what_arrow_writes_is_what_we_read(self):
        table = pyarrow.ipc.open_stream(stream()).read_all()
        wide = table.column("name").cast(pyarrow.dictionary(pyarrow.uint32(), pyarrow.string()))
        rest = [None if row % 3 else [{"key": "k", "text": f"é{row}"}] * (row % 5) for row in range(ROWS)]
        table = table.append_column("wide", wide).append_column("attrs:*", pyarrow.array(rest))
        out = io.BytesIO()
        with pyarrow.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table)
        rows, columns = read(out.getvalue())
        self.assertEqual(rows, ROWS)
        expected = {**VALUES, "wide": VALUES["name"], "attrs:*": rest}
        self.assertEqual({column.field.name: column.values for column in columns}, expected)

    def test_a_stream_that_is_cut_off_anywhere_is_an_error(self):
        data = stream("severity", "name", "bounds")
        # The last 8 bytes only say that nothing follows.
        for length in range(len(data) - 8):
            with self.assertRaises(PluginError, msg=length):
                read(data[:length])

    def test_a_damaged_stream_is_an_error_or_other_values_never_a_crash_or_a_hang(self):
        data = stream("severity", "name", "bounds", "trace_id")
        refused = 0
        for at in range(2000):
            for value in (0x00, 0x7F, 0xFF):
                damaged = bytearray(data)
                damaged[at] = value
                try:
                    for column in read(damaged)[1]:
                        column.values
                except PluginError:
                    refused += 1
        self.assertGreater(refused, 500)


if __name__ == "__main__":
    unittest.main()
