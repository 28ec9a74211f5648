"""Where statements end and data begin. Needs nothing but Python: `python3 -m unittest test_statement`."""

import unittest

from statement import Insert, InsertFromInput, Other, Refused, Rows, parse


class Statements(unittest.TestCase):
    def test_data_begin_behind_the_format_and_one_line_end(self):
        for text, rest in [
            (b"INSERT INTO t FORMAT CSV\n 1,2\n", b" 1,2\n"),
            (b"INSERT INTO t FORMAT CSV 1,2", b"1,2"),
            (b"INSERT INTO t FORMAT CSV\r\n\n", b"\n"),
            (b"INSERT INTO t FORMAT CSV", b""),
            # bytes that would end a string, a comment or a text
            (b"INSERT INTO t FORMAT CSV\n\xff\x00'/*;", b"\xff\x00'/*;"),
        ]:
            with self.subTest(text=text):
                self.assertEqual(parse(text), Insert(b"INSERT INTO t ", "CSV", rest))

    def test_words_in_names_strings_comments_and_parentheses_divide_nothing(self):
        head = b"INSERT /* FORMAT a */ INTO `FORMAT b` (format, \"VALUES\") -- VALUES\nSETTINGS log_comment = 'FORMAT \\' c' "
        self.assertEqual(parse(head + b"FORMAT ArrowStream\nx"), Insert(head, "ArrowStream", b"x"))
        self.assertEqual(parse(b"INSERT INTO format FORMAT CSV\n1"), Insert(b"INSERT INTO format ", "CSV", b"1"))
        self.assertEqual(parse(b"SELECT 'x FORMAT CSV'"), Rows(b"SELECT 'x FORMAT CSV'", "", b""))
        self.assertEqual(parse(b"SELECT format FROM t"), Rows(b"SELECT format FROM t", "", b""))

    def test_values_are_data(self):
        self.assertEqual(parse(b"INSERT INTO t VALUES (1, ';'); "), Insert(b"INSERT INTO t ", "Values", b" (1, ';'); "))

    def test_an_insert_that_selects_has_no_data(self):
        for text in [
            b"INSERT INTO t SELECT 1",
            b"INSERT INTO t WITH 1 AS x SELECT x FORMAT Null",
            b"INSERT INTO t SELECT 1 FORMAT CSV",
        ]:
            self.assertEqual(parse(text), Other(text, reads=False))

    def test_input_is_data(self):
        self.assertEqual(
            parse(b"INSERT INTO t SELECT a + 1 FROM input('a UInt8') WHERE a > 0 FORMAT CSV\n1"),
            InsertFromInput(b"INSERT INTO t SELECT a + 1 FROM ", b" WHERE a > 0 ", b"'a UInt8'", "CSV", b"1"),
        )

    def test_the_format_of_an_answer_is_its_last_clause(self):
        self.assertEqual(
            parse(b"SELECT 1 FORMAT JSON SETTINGS max_threads = 1;"),
            Rows(b"SELECT 1 ", "JSON", b" SETTINGS max_threads = 1"),
        )
        self.assertEqual(parse(b"(SELECT 1) FORMAT TSV -- so\n"), Rows(b"(SELECT 1) ", "TSV", b" -- so\n"))
        self.assertEqual(parse(b"SHOW TABLES"), Rows(b"SHOW TABLES", "", b""))

    def test_what_changes_something_is_not_taken_for_a_reader(self):
        for text in [b"CREATE TABLE t (a Int8) ENGINE = Memory", b"drop table t", b"/* SELECT */ ALTER TABLE t DELETE WHERE 1"]:
            self.assertEqual(parse(text), Other(text, reads=False))
        self.assertTrue(parse(b"USE d").reads)

    def test_refused(self):
        for text, code in [
            (b"", 62),
            (b" -- nothing\n", 62),
            (b"SELECT 1; SELECT 2", 62),
            (b"SELECT 1 INTO OUTFILE 'x'", 48),
            (b"INSERT INTO t FROM INFILE 'x' FORMAT CSV", 48),
        ]:
            with self.subTest(text=text), self.assertRaises(Refused) as refused:
                parse(text)
            self.assertEqual(refused.exception.code, code)


if __name__ == "__main__":
    unittest.main()
