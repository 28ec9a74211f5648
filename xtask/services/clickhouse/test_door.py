"""The HTTP interface as clients use it. Runs against the server at SLUICE_TEST_CLICKHOUSE_URL, the door or a real one:

    cargo xtask services clickhouse -- python3 xtask/services/clickhouse/test_door.py
"""

import gzip
import http.client
import json
import os
import re
import socket
import threading
import time
import unittest
import urllib.parse
import uuid

URL = urllib.parse.urlsplit(os.environ["SLUICE_TEST_CLICKHOUSE_URL"])


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def code(self):
        return int(self.headers.get("X-ClickHouse-Exception-Code") or 0)

    @property
    def text(self):
        return self.body.decode()


def ask(body=b"", method="POST", headers=None, connection=None, chunked=False, **parameters):
    own = connection or http.client.HTTPConnection(URL.hostname, URL.port, timeout=60)
    try:
        body = body.encode() if isinstance(body, str) else body
        target = "/?" + urllib.parse.urlencode(parameters)
        own.request(method, target, body, headers or {}, encode_chunked=chunked)
        answer = own.getresponse()
        try:
            content = answer.read()
        except http.client.IncompleteRead as cut:
            content = cut.partial
        return Answer(answer.status, answer.headers, content)
    finally:
        if connection is None:
            own.close()


class Door(unittest.TestCase):
    def setUp(self):
        self.table = f"door_{uuid.uuid4().hex}"
        self.ok(f"CREATE TABLE {self.table} (a UInt64, b String DEFAULT 'none') ENGINE = MergeTree ORDER BY a")

    def tearDown(self):
        self.ok(f"DROP TABLE {self.table}")

    def ok(self, *arguments, **parameters):
        answer = ask(*arguments, **parameters)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.text

    def test_statement_in_url_or_body_or_both(self):
        self.assertEqual(self.ok("SELECT 1"), "1\n")
        self.assertEqual(self.ok(query="SELECT 1"), "1\n")
        self.assertEqual(self.ok("1 + 1", query="SELECT"), "2\n")
        self.ok(f"INSERT INTO {self.table} (a) VALUES (1), (2)")
        self.ok("(3, 'x')", query=f"INSERT INTO {self.table} VALUES")
        self.ok('{"a": 4}\n', query=f"INSERT INTO {self.table} FORMAT JSONEachRow")
        self.ok(f"INSERT INTO {self.table} FORMAT CSV\n5,y\n")
        answer = self.ok(f"SELECT * FROM {self.table} ORDER BY a")
        self.assertEqual(answer, "1\tnone\n2\tnone\n3\tx\n4\tnone\n5\ty\n")

    def test_insert_through_input(self):
        query = f"INSERT INTO {self.table} SELECT x * 2, 'i' FROM input('x UInt64') FORMAT CSV"
        self.ok("1\n2\n", query=query)
        self.assertEqual(self.ok(f"SELECT sum(a) FROM {self.table}"), "6\n")

    def test_formats(self):
        self.assertEqual(json.loads(self.ok("SELECT 1 AS x", default_format="JSONEachRow")), {"x": 1})
        self.assertEqual(self.ok("SELECT 1 AS x FORMAT CSVWithNames", default_format="JSON"), '"x"\n1\n')
        self.assertEqual(ask("SELECT 1", default_format="Nope").code, 73)

    def test_parameters_and_settings_hold_for_their_request(self):
        self.assertEqual(self.ok("SELECT {x:String}, {n:UInt8}", param_x="it's \\\\ ü", param_n="7"), "it\\'s \\\\ ü\t7\n")
        self.assertEqual(self.ok("SELECT getSetting('max_block_size')", max_block_size="1234"), "1234\n")
        self.assertNotEqual(self.ok("SELECT getSetting('max_block_size')"), "1234\n")
        refused = ask("SELECT 1", no_such_setting="1")
        self.assertEqual((refused.status, refused.code), (404, 115))

    def test_sessions_keep_their_state_and_no_other_sees_it(self):
        session = uuid.uuid4().hex
        self.ok("CREATE TEMPORARY TABLE kept AS SELECT 42 AS x", session_id=session)
        self.ok("SET max_block_size = 77", session_id=session)
        self.assertEqual(self.ok("SELECT x, getSetting('max_block_size') FROM kept", session_id=session), "42\t77\n")
        self.assertEqual(self.ok("SELECT getSetting('max_block_size')", session_id=session, max_block_size="78"), "78\n")
        self.assertEqual(self.ok("SELECT getSetting('max_block_size')", session_id=session), "77\n")
        self.assertEqual(ask("SELECT x FROM kept").code, 60)
        self.assertEqual(ask("SELECT 1", session_id=uuid.uuid4().hex, session_check="1").code, 372)

    def test_a_session_has_one_user_at_a_time(self):
        session = uuid.uuid4().hex
        codes = []
        busy = threading.Thread(
            target=lambda: codes.append(ask("SELECT sleepEachRow(0.2) FROM numbers(15) FORMAT Null", session_id=session).code)
        )
        busy.start()
        while busy.is_alive() and 373 not in codes:
            codes.append(ask("SELECT 1", session_id=session).code)
        busy.join()
        self.assertIn(373, codes)

    def test_databases(self):
        name = f"d_{uuid.uuid4().hex}"
        self.ok(f"CREATE DATABASE {name}")
        try:
            self.assertEqual(self.ok("SELECT currentDatabase()", database=name), f"{name}\n")
            self.assertEqual(self.ok("SELECT currentDatabase()"), "default\n")
        finally:
            self.ok(f"DROP DATABASE {name}")
        self.assertEqual(ask("SELECT 1", database=name).code, 81)

    def test_errors_have_status_code_and_text(self):
        for query, status, code in [
            ("SELEC 1", 400, 62),
            ("SELECT nope", 404, 47),
            ("SELECT * FROM nope", 404, 60),
            ("SELECT throwIf(1)", 500, 395),
            (f"INSERT INTO {self.table} FORMAT JSONEachRow\n{{x", 400, 117),
        ]:
            with self.subTest(query=query):
                answer = ask(query)
                self.assertRegex(answer.text, r"(?s)^Code: %d\. DB::Exception: .*\n$" % answer.code)
                self.assertEqual(answer.status, status)
                if "INSERT" not in query:  # how broken JSON is called has changed often
                    self.assertEqual(answer.code, code)

    def test_a_failed_insert_leaves_no_rows(self):
        self.assertNotEqual(ask(f"INSERT INTO {self.table} FORMAT CSV\n1,x\nnot a number,y\n").code, 0)
        self.assertEqual(self.ok(f"SELECT count() FROM {self.table}"), "0\n")

    def test_a_client_that_vanishes_leaves_no_rows_and_no_trouble(self):
        connection = http.client.HTTPConnection(URL.hostname, URL.port, timeout=60)
        connection.putrequest("POST", "/?" + urllib.parse.urlencode({"query": f"INSERT INTO {self.table} FORMAT CSV"}))
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        connection.send(b"4\r\n1,x\n\r\n")
        connection.sock.shutdown(socket.SHUT_WR)
        # The server has done with it when it closes its side.
        while connection.sock.recv(4096):
            pass
        connection.close()
        self.ok(f"INSERT INTO {self.table} FORMAT CSV\n2,y\n")
        self.assertEqual(self.ok(f"SELECT * FROM {self.table}"), "2\ty\n")

    def test_a_query_whose_reader_vanishes_ends(self):
        mark = uuid.uuid4().hex
        connection = http.client.HTTPConnection(URL.hostname, URL.port, timeout=60)
        connection.request("POST", "/", f"SELECT number, '{mark}' FROM numbers(1000000000000)")
        connection.getresponse().read(1000)
        count = f"SELECT count() FROM system.processes WHERE position(query, '{mark}') > 0 AND query_id != queryID()"
        self.assertEqual(self.ok(count), "1\n")
        connection.close()
        give_up = time.monotonic() + 60
        while self.ok(count) != "0\n":
            self.assertLess(time.monotonic(), give_up, "the query goes on")

    def test_an_error_behind_the_first_rows_is_marked_and_cuts_the_answer(self):
        answer = ask("SELECT number, throwIf(number = 5000000) FROM numbers(10000000)", max_block_size="65536")
        self.assertEqual(answer.status, 200)
        tag = answer.headers["X-ClickHouse-Exception-Tag"]
        self.assertIsNotNone(tag)
        end = re.search(rb"__exception__\r\n(\w+)\r\n(Code: 395\. .*)\n(\d+) \1\r\n__exception__\r\n$", answer.body[-4096:], re.S)
        self.assertIsNotNone(end, answer.body[-300:])
        self.assertEqual(end.group(1).decode(), tag)

    def test_a_get_changes_nothing(self):
        self.assertEqual(ask(method="GET", query="SELECT 1").text, "1\n")
        self.assertEqual(ask(method="GET", query=f"TRUNCATE TABLE {self.table}").code, 164)
        self.assertEqual(ask(method="GET", query=f"INSERT INTO {self.table} VALUES (1, 'x')").code, 164)

    def test_compressed_both_ways(self):
        data = gzip.compress(b"1,x\n") + gzip.compress(b"2,y\n")
        self.ok(data, query=f"INSERT INTO {self.table} FORMAT CSV", headers={"Content-Encoding": "gzip"})
        answer = ask(f"SELECT * FROM {self.table}", headers={"Accept-Encoding": "gzip"}, enable_http_compression="1")
        self.assertEqual(answer.headers["Content-Encoding"], "gzip")
        self.assertEqual(gzip.decompress(answer.body), b"1\tx\n2\ty\n")
        cut = ask(data[:-6], query=f"INSERT INTO {self.table} FORMAT CSV", headers={"Content-Encoding": "gzip"})
        self.assertNotEqual(cut.code, 0)
        blocks = ask("SELECT number FROM numbers(300000)", compress="1").body
        count = ask(blocks, query=f"INSERT INTO {self.table} (a) FORMAT TSV", decompress="1")
        self.assertEqual(count.status, 200, count.body)
        self.assertEqual(self.ok(f"SELECT count(), max(a) FROM {self.table}"), "300002\t299999\n")
        damaged = blocks[:40] + bytes([blocks[40] ^ 1]) + blocks[41:]
        self.assertEqual(ask(damaged, query=f"INSERT INTO {self.table} (a) FORMAT TSV", decompress="1").code, 40)

    def test_one_connection_takes_many_requests_errors_too(self):
        connection = http.client.HTTPConnection(URL.hostname, URL.port, timeout=60)
        pieces = iter([b"1,", b"x\n2,y\n", b"3,z\n"])
        query = f"INSERT INTO {self.table} FORMAT CSV"
        connection.request("POST", "/?" + urllib.parse.urlencode({"query": query}), pieces, encode_chunked=True,
                           headers={"Transfer-Encoding": "chunked"})  # fmt: skip
        answer = connection.getresponse()
        answer.read()
        self.assertEqual(answer.status, 200)
        summary = json.loads(answer.headers["X-ClickHouse-Summary"])
        self.assertEqual(summary["written_rows"], "3")
        before = connection.sock
        self.assertEqual(ask("SELECT nope", connection=connection).code, 47)
        self.assertEqual(ask("x" * 100, connection=connection, query="SELECT nope FORMAT").status, 404)
        self.assertEqual(ask("SELECT 1", connection=connection, user="nobody", password="x").status, 403)
        self.assertEqual(ask(f"SELECT count() FROM {self.table}", connection=connection).text, "3\n")
        self.assertIs(connection.sock, before, "the connection was closed in between")
        connection.close()

    def test_many_at_once(self):
        results = []

        def work(number):
            self.ok(f"{number},w\n", query=f"INSERT INTO {self.table} FORMAT CSV")
            results.append(self.ok("SELECT count() FROM numbers(1000000) WHERE number % 3 = 0"))

        workers = [threading.Thread(target=work, args=(n,)) for n in range(20)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self.assertEqual(results, ["333334\n"] * 20)
        self.assertEqual(self.ok(f"SELECT count(), uniqExact(a) FROM {self.table}"), "20\t20\n")

    def test_ping(self):
        connection = http.client.HTTPConnection(URL.hostname, URL.port, timeout=60)
        connection.request("GET", "/ping")
        self.assertEqual(connection.getresponse().read(), b"Ok.\n")
        connection.close()


if __name__ == "__main__":
    unittest.main()
