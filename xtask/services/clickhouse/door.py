"""A ClickHouse HTTP interface in front of the embedded engine: what clients of a server use, and nothing else.

    python door.py --path FOLDER --port PORT

Statements in the URL or in the body, data in the body, settings and parameters in the URL, sessions, compression both ways,
errors with `X-ClickHouse-Exception-Code`. Listens on the loopback only. SIGTERM ends it.
"""

import argparse
import base64
import json
import os
import re
import signal
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from urllib.parse import parse_qsl, urlsplit

import body
import statement
from engine import SESSION_SECONDS, SESSION_SECONDS_LIMIT, Engine, insert, rows, run
from errors import ClickHouseError, error, from_engine, line

HEAD_LIMIT = 1 << 18  # bytes of a statement before its data: the server's max_query_size
STATEMENT_LIMIT = 1 << 26  # bytes of a statement that has no data behind it
ANSWER_BUFFER = 1 << 20  # bytes kept back, so that an early error still gets its status
DRAIN_LIMIT = 1 << 26  # bytes read of a body that nobody wants, to keep the connection
QUERIES = 100  # at once
IDLE_SECONDS = 600  # without a byte from the client

# Parameters of the interface; every other one is a setting.
OWN = {
    "query", "database", "default_format", "user", "password", "quota_key", "query_id", "stacktrace", "role",
    "buffer_size", "wait_end_of_query", "session_id", "session_timeout", "session_check", "close_session",
    "client_protocol_version", "compress", "decompress",
}  # fmt: skip


class SessionWish:
    def __init__(self, parameters):
        self.name = parameters["session_id"]
        text = parameters.get("session_timeout", str(SESSION_SECONDS))
        if not text.isdigit() or int(text) > SESSION_SECONDS_LIMIT:
            raise error(374, "INVALID_SESSION_TIMEOUT", f"Invalid session timeout: '{text}'")
        self.seconds = int(text)
        self.must_exist = parameters.get("session_check") == "1"
        self.close = parameters.get("close_session") == "1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    timeout = IDLE_SECONDS

    def do_GET(self):
        path = urlsplit(self.path)
        if path.path in ("/ping", "/replicas_status") or (path.path == "/" and not path.query):
            self._plain(200, b"Ok.\n")
        elif path.path == "/":
            self._query(path.query, reads_only=True)
        else:
            self._plain(404, b"There is no handle %s: this door has /, /ping and /replicas_status\n" % path.path.encode())

    do_HEAD = do_GET

    def do_POST(self):
        path = urlsplit(self.path)
        if path.path == "/":
            self._query(path.query, reads_only=False)
        else:
            self.close_connection = True
            self._plain(404, b"There is no handle %s: statements go to /\n" % path.path.encode())

    def _query(self, query, reads_only):
        engine = self.server.engine
        self.sent = False
        source = None
        if not self.server.slots.acquire(blocking=False):
            self.close_connection = True
            self._fail(error(202, "TOO_MANY_SIMULTANEOUS_QUERIES", f"Too many simultaneous queries. Maximum: {QUERIES}"))
            return
        try:
            parameters = dict(parse_qsl(query, keep_blank_values=True, encoding="latin-1"))
            parameters = {k: v.encode("latin-1").decode("utf-8", "surrogateescape") for k, v in parameters.items()}
            self.query_id = parameters.get("query_id") or str(uuid.uuid4())
            source = body.RequestBody(self.rfile, self.headers)
            self._authenticate(parameters)
            self._perform(engine, parameters, source, reads_only)
        except (body.Truncated, ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as failure:
            if not isinstance(failure, ClickHouseError):
                self.log_error("%s: %s", type(failure).__name__, failure)
            self._fail(from_engine(failure))
        finally:
            self.server.slots.release()
            try:
                if source is not None and not source.drain(DRAIN_LIMIT):
                    self.close_connection = True
            except (body.Truncated, ClickHouseError, OSError):
                self.close_connection = True

    def _authenticate(self, parameters):
        user, password = parameters.get("user", ""), parameters.get("password", "")
        header = self.headers.get("Authorization", "")
        if header.startswith("Basic "):
            try:
                user, _, password = base64.b64decode(header[6:]).decode().partition(":")
            except ValueError:
                raise error(516, "AUTHENTICATION_FAILED", "the Authorization header is not understood") from None
        elif header:
            raise error(516, "AUTHENTICATION_FAILED", "this door knows the user `default` without a password only")
        user = self.headers.get("X-ClickHouse-User", user) or "default"
        password = self.headers.get("X-ClickHouse-Key", password)
        if user != "default" or password:
            raise error(
                516,
                "AUTHENTICATION_FAILED",
                f"{user}: Authentication failed: password is incorrect, or there is no user with such name.",
            )

    def _perform(self, engine, parameters, source, reads_only):
        settings = {k: v for k, v in parameters.items() if k not in OWN and not k.startswith("param_")}
        values = {k[6:]: v for k, v in parameters.items() if k.startswith("param_")}
        for name in values:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise error(36, "BAD_ARGUMENTS", f"{name!r} is no name of a parameter")
        database = parameters.get("database") or self.headers.get("X-ClickHouse-Database", "")
        self.format = parameters.get("default_format") or self.headers.get("X-ClickHouse-Format") or "TabSeparated"
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", self.format):
            raise error(73, "UNKNOWN_FORMAT", f"Unknown format {self.format}")
        self.compress = parameters.get("compress") == "1"
        self.encode = settings.get("enable_http_compression", "1") == "1"
        self.wait = parameters.get("wait_end_of_query") == "1"
        session = SessionWish(parameters) if parameters.get("session_id") else None
        if self.headers.get("Content-Type", "").startswith("multipart/"):
            raise error(48, "NOT_IMPLEMENTED", "this door takes no external tables: send the statement or data as the body")

        pieces = body.decoded(source, self.headers.get("Content-Encoding"))
        if parameters.get("decompress") == "1":
            pieces = body.from_blocks(pieces)
        parsed, pieces = self._statement(parameters.get("query", ""), pieces)
        if reads_only and not getattr(parsed, "reads", isinstance(parsed, statement.Rows)):
            raise error(
                164,
                "READONLY",
                "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. "
                "You should use method POST for modifying queries.",
            )
        with engine.connection(settings, database, values, session) as connection:
            if isinstance(parsed, statement.Rows):
                end = self._rows(connection, parsed)
            elif isinstance(parsed, statement.Other):
                done = run(connection, parsed.text.decode("utf-8", "surrogateescape"), self.format)
                end = self._answer([done.bytes()], [done])
            else:
                written, size = insert(connection, parsed, pieces)
                end = self._answer([], [], {"written_rows": written, "written_bytes": size})
        # Only now: who has read an answer to its end may use its session again at once.
        end()

    def _statement(self, url, pieces):
        """The statement, and the data behind it. Statement and body are one text to the parser, with a line end between."""
        text = url.encode("utf-8", "surrogateescape")
        if text:
            text += b"\n"
        try:
            while len(text) < HEAD_LIMIT:
                piece = next(pieces, None)
                if piece is None:
                    break
                text += piece
                # Data of any size may follow an INSERT: its head is all that is read before they flow.
                if self._is_insert_with_data(text):
                    break
            parsed = statement.parse(text)
            if isinstance(parsed, (statement.Insert, statement.InsertFromInput)):
                return parsed, chain([parsed.rest], pieces)
            for piece in pieces:
                text += piece
                if len(text) > STATEMENT_LIMIT:
                    raise error(223, "QUERY_IS_TOO_LARGE", f"a statement has at most {STATEMENT_LIMIT} bytes")
            return statement.parse(text), iter(())
        except statement.Refused as refused:
            raise error(refused.code, refused.name, str(refused)) from refused

    @staticmethod
    def _is_insert_with_data(text):
        first = next(statement.tokens(text), None)
        if first is None or not first.is_word(b"INSERT"):
            return False
        return isinstance(statement.parse(text), (statement.Insert, statement.InsertFromInput))

    def _rows(self, connection, parsed):
        counts = []
        self.format = parsed.format or self.format
        return self._answer(rows(self.server.engine, connection, parsed, self.format, counts), counts)

    # The answer.

    def _answer(self, pieces, counts, summary=None):
        """Sends what there is to send while the query runs; returns what sends the end."""
        coder = body.answer_coder(self.compress, self.headers.get("Accept-Encoding"), self.encode)
        tag = body.tag()
        held = []
        size = 0
        try:
            for piece in pieces:
                held.append(piece)
                size += len(piece)
                if size < ANSWER_BUFFER or (self.wait and not self.sent):
                    continue
                if not self.sent:
                    self._head(coder, tag, {})
                self._chunk(coder.add(b"".join(held)))
                held, size = [], 0
        except ClickHouseError as failure:
            if not self.sent:
                raise
            return lambda failure=failure: self._fail_late(coder, tag, failure, held)
        finally:
            if hasattr(pieces, "close"):
                pieces.close()
        summary = self._summary(counts, summary)

        def end():
            if not self.sent:
                self._head(coder, tag, summary)
            self._chunk(coder.add(b"".join(held)) + coder.finish())
            self._end()

        return end

    @staticmethod
    def _summary(counts, summary):
        summary = dict(summary or {})
        if counts:
            done = counts[0]
            summary |= {"read_rows": done.storage_rows_read(), "read_bytes": done.storage_bytes_read()}
            summary |= {"written_rows": done.rows_written(), "written_bytes": done.bytes_written()}
            summary |= {"result_rows": done.rows_read(), "result_bytes": done.bytes_read()}
            summary |= {"elapsed_ns": int(done.elapsed() * 1e9)}
        return summary

    def _common(self):
        self.send_header("X-ClickHouse-Query-Id", getattr(self, "query_id", ""))
        self.send_header("X-ClickHouse-Server-Display-Name", "sluice-services")
        self.send_header("X-ClickHouse-Timezone", self.server.engine.timezone)

    def _head(self, coder, tag, summary):
        self.sent = True
        self.send_response(200)
        self.send_header("Content-Type", "text/tab-separated-values; charset=UTF-8" if self.format.startswith("Tab") else
                         "application/json; charset=UTF-8" if self.format.startswith("JSON") else "application/octet-stream")
        self._common()
        self.send_header("X-ClickHouse-Format", self.format)
        self.send_header("X-ClickHouse-Exception-Tag", tag.decode())
        self.send_header("X-ClickHouse-Summary", json.dumps({k: str(v) for k, v in summary.items()}))
        if coder.name:
            self.send_header("Content-Encoding", coder.name)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data):
        if data and self.command != "HEAD":
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _end(self):
        if self.command != "HEAD":
            self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _fail(self, failure):
        """An error before the first byte of an answer; an error behind it has no place but the end of the connection."""
        if getattr(self, "sent", False):
            self.close_connection = True
            return
        self._plain(failure.status, line(failure, self.server.engine.version), failure.code)

    def _fail_late(self, coder, tag, failure, held):
        """The status is gone. The error follows the rows, between marks that the header announced, and the answer is cut short:
        a client that knows no marks sees that it has no proper end."""
        text = line(failure, self.server.engine.version)
        marked = b"\r\n__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n" % (tag, text, len(text), tag)
        self._chunk(coder.add(b"".join(held)))
        self._chunk(coder.add(marked) + coder.finish())
        self.wfile.flush()
        self.close_connection = True

    def _plain(self, status, text, code=None):
        try:
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=UTF-8")
            self._common()
            if code is not None:
                self.send_header("X-ClickHouse-Exception-Code", str(code))
            self.send_header("Content-Length", str(len(text)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)
            self.wfile.flush()
        except OSError:
            self.close_connection = True

    def log_request(self, code="-", size="-"):
        pass  # a line per query would drown the errors


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address, engine):
        super().__init__(address, Handler)
        self.engine = engine
        self.slots = threading.BoundedSemaphore(QUERIES)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--path", required=True, help="folder of the engine's data")
    arguments.add_argument("--port", required=True, type=int)
    arguments = arguments.parse_args()
    # Bound first: a taken port is found before the engine opens its data.
    server = Server(("127.0.0.1", arguments.port), None)
    server.engine = Engine(os.path.abspath(arguments.path))
    # shutdown() waits for serve_forever, which runs in the very thread that signals interrupt.
    stop = lambda *_: threading.Thread(target=server.shutdown, daemon=True).start()  # noqa: E731
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"ClickHouse {server.engine.version} answers on 127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
    server.engine.close()


if __name__ == "__main__":
    main()
