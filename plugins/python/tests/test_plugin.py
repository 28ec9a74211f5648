"""Plugins as authors write them: rows, columns, configuration, and mistakes."""

import json
import unittest

from support import ROWS, check, error_of, stream

from sluice_plugin import WARN, Outcome, PluginError, drop, plugin, quarantine
from sluice_plugin.error import public_text


def make(function, name=None, **parts):
    """A plugin of a lambda that is called `keep` unless told otherwise."""
    function.__name__ = name or "keep"
    parts = {"name": "test", "version": "0.1.0", "kind": "filter", "reads": ["body"], **parts}
    return plugin(**parts)(function)


class Rows(unittest.TestCase):
    def test_a_filter_keeps_drops_by_reason_and_sets_aside(self):
        @plugin(name="test", version="0.1.0", kind="filter", reads=["severity", "service"])
        def keep(row):
            if row.service == "noisy":
                return drop("noise")
            if row.service == "":
                return quarantine("no service")
            return row.severity >= WARN or row.service == "checkout"

        kept = [{"severity": 17, "service": "cart"}, {"service": "checkout"}]
        rows = [kept[0], {"severity": 9, "service": "cart"}, {"service": "noisy"}, kept[1], {"severity": 17}]
        drops = {"filtered": 1, "noise": 1}
        check({"rows": rows, "expect": {"rows": kept, "drops": drops, "quarantined": {"no service": 1}}}, keep)

    def test_rows_read_what_is_there_in_its_type(self):
        seen = []

        def keep(row):
            core = [row.body, row.severity, row.time, row.trace_id, row.duration_ns, row.value, row.weight, row.host]
            keys = ["s", "i", "d", "b", "big", "raw", "list", "rare", "none", "gone"]
            seen.append((core, [row.attr(key) for key in keys]))
            return row.attr("gone", 5) == 5

        check(
            """{"rows": [{"time": 5, "attrs": {"s": "é", "i": 3, "d": 2.0, "b": false, "big": 9007199254740993,
            "raw": {"$bytes": "AQI="}, "list": [1, "x"], "none": null}, "attrs:*": {"rare": 7}, "duration_ns": 12,
            "value_int": 4, "trace_id": "0102030405060708090a0b0c0d0e0f10", "host": "h"}, {"body": ""}],
            "expect": "unchanged"}""",
            make(keep, reads=["*"]),
        )
        core = ["", 0, 5, "0102030405060708090a0b0c0d0e0f10", 12, 4, 1.0, "h"]
        odd = ["é", 3, 2.0, False, 9007199254740993, b"\1\2", '[1,"x"]', 7, None, None]
        self.assertEqual(seen[0], (core, odd))
        self.assertEqual(list(map(type, seen[0][1])), list(map(type, odd)))
        self.assertEqual(seen[1][0], ["", 0, 1_767_225_600_000_000_000, "", None, None, 1.0, ""])

    def test_changes_go_to_columns_of_their_type_and_a_key_keeps_one_value(self):
        columns = ["body", "attrs.*", "service", "weight", "trace_id"]

        def change(row):
            row.body = row.body.upper()
            row.set_attr("n", row.attr("n") + 1)
            row.set_attr("t", "text now")
            row.remove_attr("gone")
            row.set_attr("rare", "no longer")
            row.service = row.service or "unknown"
            row.weight = 2.5
            row.trace_id = ""
            return row.attr("n") < 100

        first = {"n": 1, "t": 5, "gone": "x", "stays": True}
        rows = [
            {"body": "ä", "attrs": first, "attrs:*": {"rare": 1, "other": "y"}, "trace_id": "0" * 32},
            {"body": "", "attrs": {"n": 0.5}, "service": "shop"},
            {"body": "z", "attrs": {"n": 99}},
        ]
        after = {"n": 2, "t": "text now", "stays": True, "rare": "no longer", "other": "y"}
        second = {"n": 1.5, "t": "text now", "rare": "no longer"}
        expected = [
            {"body": "Ä", "attrs": after, "service": "unknown", "weight": 2.5},
            {"body": "", "attrs": second, "service": "shop", "weight": 2.5},
        ]
        tested = make(change, "map", kind="enrich", writes=columns)
        check({"rows": rows, "expect": {"rows": expected, "drops": {"filtered": 1}}}, tested)

    def test_columns_are_seen_and_changed_as_a_whole(self):
        def process(batch):
            severity = batch.values("severity")
            outcome = Outcome(batch).keep(lambda row: severity[row] is not None, "no severity")
            outcome.column("name", batch.column("name").map(lambda text: text + "!"))
            return outcome.column("attrs:i:n", severity).weight(2)

        tested = make(process, "process", reads=["severity", "name"], writes=["name", "weight", "attrs.n"])
        rows = [{"name": "a", "severity": 1}, {"name": "a"}, {"severity": 3, "weight": 1.5}]
        expected = [
            {"name": "a!", "severity": 1, "weight": 2, "attrs": {"n": 1}},
            {"severity": 3, "weight": 3, "attrs": {"n": 3}},
        ]
        check({"rows": rows, "expect": {"rows": expected, "drops": {"no severity": 1}}}, tested)

    def test_nothing_changed_means_nothing_given_back(self):
        def same(row):
            row.body = row.body

        tested = make(same, "map", writes=["body"])
        tested.init("")
        outcome = tested.process(stream("body"), None)
        nothing = {"selection": None, "columns": None, "weight": None, "drops": [], "quarantine": None}
        self.assertEqual(outcome, nothing)

    def test_many_different_reasons_of_quarantine_become_one_that_the_contract_allows(self):
        tested = make(lambda row: quarantine(f"reason {row.index}".ljust(64, "x")))
        tested.init("")
        rows, reason = tested.process(stream("body"), None)["quarantine"]
        self.assertRegex(reason, r"^reason 0x+ and 699 more$")
        self.assertLessEqual(len(reason), 64)
        self.assertEqual(len(rows), (ROWS + 7) // 8)


class Configuration(unittest.TestCase):
    def test_it_is_checked_completed_and_described(self):
        config = {
            "min": {"type": "integer", "default": 13, "minimum": 1},
            "names": {"type": "array", "items": {"type": "string"}, "description": "services"},
            "note": {"type": "string", "default": None},
        }
        seen = []
        tested = make(lambda row: True, config=config, init=seen.append)
        schema = json.loads(tested.config_schema)
        self.assertEqual((schema["required"], schema["additionalProperties"]), (["names"], False))
        tested.init('{"names": ["a"]}')
        self.assertEqual(seen, [{"names": ["a"], "min": 13, "note": None}])
        self.assertEqual(seen[0].min, 13)
        for text, error in [
            ("{", "not JSON"),
            ("[]", "the configuration must be an object"),
            ("{}", "needs the key `names`: services"),
            ('{"names": [1]}', r"`names\[0\]` must be a string, not 1"),
            ('{"names": [], "min": 0}', "`min` must be at least 1"),
            ('{"names": [], "min": true}', "`min` must be an integer"),
            ('{"names": [], "mni": 1}', r"no key `mni`; did you mean `min`\?"),
        ]:
            with self.assertRaisesRegex(PluginError, error, msg=text):
                tested.init(text)
        with self.assertRaisesRegex(PluginError, "no configuration"):
            make(lambda row: True).init('{"a": 1}')
        with self.assertRaisesRegex(PluginError, "`config.a` has `format`"):
            make(lambda row: True, config={"a": {"type": "string", "format": "x"}})


class Mistakes(unittest.TestCase):
    def test_of_a_definition_are_told_when_it_is_made(self):
        for parts, error in [
            ({"reads": ["severty"]}, "`reads` names `severty`, which is no column; did you mean `severity`"),
            ({"reads": ["http.route"]}, "attributes are declared as `attrs.KEY`"),
            ({"writes": ["signal"]}, "no plugin may write `signal`"),
            ({"reads": []}, "names no column"),
            ({"reads": "body"}, "must be a list"),
            ({"kind": "filtr"}, "`kind` must be one of"),
            ({"version": "1"}, "`version`"),
        ]:
            with self.assertRaisesRegex(PluginError, error):
                make(lambda row: True, **parts)
        with self.assertRaisesRegex(PluginError, "called one of keep, map, process"):
            make(lambda row: True, "filter")

    def test_of_a_run_are_errors_that_say_what_to_do(self):
        def setting(value):
            def change(row):
                row.body = value

            return change

        def failure(function, name=None, **parts):
            return error_of(make(function, name, **parts))

        self.assertIn("reads `severity`, which is not among its `reads`", failure(lambda row: row.severity > 1))
        self.assertIn("attribute `attrs.k`, which is not among its `reads`", failure(lambda row: row.attr("k") == 1))
        self.assertIn("kept with True", failure(lambda row: None))
        self.assertIn("changes `body`, which is not among its `writes`", failure(setting("y"), "map"))
        self.assertIn("a reason must be", failure(lambda row: drop("a/b")))
        self.assertIn("a mask may not quarantine", failure(lambda row: quarantine("x"), kind="mask"))
        self.assertIn("holds utf8; row 0 was given int", failure(setting(5), "map", writes=["body"]))
        self.assertIn("needs `weight`", failure(lambda batch: Outcome(batch).weight(2), "process"))
        self.assertIn("must answer an Outcome", failure(lambda batch: 5, "process"))

    def test_p11_what_a_component_tells_of_an_error_holds_nothing_of_the_data(self):
        secret = "4111 1111 1111 1111"
        raising = [lambda row: int(secret), lambda row: {}[secret], lambda row: getattr(row, secret)]
        for function in raising:
            tested = make(function, kind="mask")
            tested.init("")
            told = ""
            try:
                tested.process(stream("body"), None)
            except Exception as error:
                told = public_text(error)
            self.assertNotIn("1111", told)
            self.assertRegex(told, r"^(ValueError|KeyError|AttributeError) in .*, line \d+$")
        self.assertEqual(public_text(PluginError("the table is empty")), "the table is empty")


class TestKit(unittest.TestCase):
    def test_a_fixture_that_is_not_met_fails_whatever_part_of_it(self):
        tested = make(lambda row: row.body != "b")
        rows = [{"body": "a"}, {"body": "b"}]
        check({"rows": rows, "expect": {"rows": [rows[0]], "drops": {"filtered": 1}}}, tested)
        for expect in [
            "unchanged",
            {"rows": []},
            {"rows": [{"body": "a", "severity": 1}]},
            {"drops": {}},
            {"quarantined": {"x": 1}},
            {"error": "x"},
        ]:
            with self.assertRaises(AssertionError, msg=expect):
                check({"rows": rows, "expect": expect}, tested)
        with self.assertRaisesRegex(ValueError, "no key `confg`; did you mean `config`"):
            check({"rows": rows, "expect": "unchanged", "confg": {}}, tested)


if __name__ == "__main__":
    unittest.main()
