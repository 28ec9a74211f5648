"""The embedded engine as the door uses it: a connection per request, sessions by name, rows and inserts as streams."""

import itertools
import os
import tempfile
import threading
import time
from contextlib import contextmanager

import chdb

import statement
from errors import error, from_engine

SESSION_SECONDS = 60  # the server's default
SESSION_LIMIT = 1000  # sessions at once
SESSION_SECONDS_LIMIT = 3600  # the server's default
PIPE_BYTES = 1 << 20
READ_BYTES = 1 << 18
KILL_SECONDS = 0.2  # between attempts to end a query that nobody waits for


ANSWERS = itertools.count(1)


def quoted(value):
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def name_quoted(name):
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


class Session:
    def __init__(self, connection):
        self.connection = connection
        self.lock = threading.Lock()
        self.ends = 0.0


class Engine:
    """One engine per process. It lives as long as its first connection."""

    def __init__(self, path):
        self._path = path
        self._first = chdb.connect(path)
        self._sessions = {}
        self._lock = threading.Lock()
        self.version = self.value("SELECT version()")
        self.timezone = self.value("SELECT timezone()")

    def value(self, query):
        return self._first.query(query, "TabSeparatedRaw").bytes().decode().rstrip("\n")

    def close(self):
        with self._lock:
            for session in self._sessions.values():
                session.connection.close()
            self._sessions.clear()
            self._first.close()

    @contextmanager
    def connection(self, settings, database, parameters, session):
        """A connection with these settings, for one request. A session's own settings come back afterwards."""
        with self._named(session) if session else self._fresh() as connection:
            kept = []
            try:
                if database:
                    run(connection, f"USE {name_quoted(database)}")
                # All at once: a statement takes the engine most of a millisecond, and a server sets them for nothing.
                _set(connection, {f"param_{name}": value for name, value in parameters.items()})
                if session:
                    kept = [(name, _setting(connection, name)) for name in settings]
                _set(connection, {name_quoted(name): value for name, value in settings.items()})
                yield connection
            finally:
                for name, value in reversed(kept):
                    if value is not None:
                        run(connection, f"SET {name_quoted(name)} = {quoted(value)}")

    def kill(self, mark):
        """Ends the queries that have this in their text."""
        with self._fresh() as connection:
            run(connection, f"KILL QUERY WHERE position(query, {quoted(mark)}) > 0 AND query_id != queryID() ASYNC")

    @contextmanager
    def _fresh(self):
        connection = chdb.connect(self._path)
        try:
            yield connection
        finally:
            connection.close()

    @contextmanager
    def _named(self, wish):
        now = time.monotonic()
        with self._lock:
            for name in [n for n, s in self._sessions.items() if s.ends < now and not s.lock.locked()]:
                self._sessions.pop(name).connection.close()
            found = self._sessions.get(wish.name)
            if found is None:
                if wish.must_exist:
                    raise error(372, "SESSION_NOT_FOUND", f"Session {wish.name} not found")
                if len(self._sessions) >= SESSION_LIMIT:
                    raise error(202, "TOO_MANY_SIMULTANEOUS_QUERIES", f"more than {SESSION_LIMIT} sessions")
                found = self._sessions[wish.name] = Session(chdb.connect(self._path))
            if not found.lock.acquire(blocking=False):
                raise error(373, "SESSION_IS_LOCKED", f"Session {wish.name} is locked by a concurrent client")
            found.ends = now + wish.seconds
        try:
            yield found.connection
        finally:
            with self._lock:
                found.ends = time.monotonic() + wish.seconds
                found.lock.release()
                if wish.close and self._sessions.pop(wish.name, None):
                    found.connection.close()


def _set(connection, values):
    if values:
        run(connection, "SET " + ", ".join(f"{name} = {quoted(value)}" for name, value in values.items()))


def _setting(connection, name):
    """The text of a setting, or None where there is none of this name: then setting it says so better."""
    answer = run(connection, f"SELECT value FROM system.settings WHERE name = {quoted(name)}").bytes()
    return answer.decode().removesuffix("\n") if answer else None


def run(connection, query, format="TabSeparatedRaw"):
    try:
        return connection.query(query, format)
    except Exception as failure:
        raise from_engine(failure) from failure


def rows(engine, connection, parsed, default_format, result):
    """The answer in pieces, while the engine writes it: through a pipe, because its own pieces are whole files each.

    An error comes out after the pieces that were written before it. `result` gets the engine's counts at the end."""
    read, write = os.pipe()
    _widen(write)
    # Of this query alone: the number of a pipe is that of another one as soon as it is closed.
    mark = f"/* answer {next(ANSWERS)} */"
    outcome = []

    def work():
        try:
            answer = parsed.format or default_format
            text = b"%s\n%s INTO OUTFILE '/dev/fd/%d' APPEND FORMAT %s%s" % (
                parsed.body,
                mark.encode(),
                write,
                answer.encode(),
                parsed.tail,
            )
            outcome.append(run(connection, _text(text)))
        except Exception as failure:
            outcome.append(from_engine(failure))
        finally:
            os.close(write)

    worker = threading.Thread(target=work, name="query", daemon=True)
    worker.start()
    try:
        while piece := os.read(read, READ_BYTES):
            yield piece
    finally:
        os.close(read)
        # Nobody reads the answer of a query that still runs, which the engine does not notice by itself. It may not have begun yet.
        while worker.is_alive():
            engine.kill(mark)
            worker.join(KILL_SECONDS)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    result.append(outcome[0])


def _widen(pipe):
    try:
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except (ImportError, AttributeError, OSError):
        pass  # smaller steps, the same bytes


def insert(connection, parsed, pieces):
    """Rows and bytes written. What was appended before an error or a lost client is not committed."""
    if isinstance(parsed, statement.InsertFromInput):
        return _insert_spooled(connection, parsed, pieces)
    try:
        inserter = connection.send_insert(_text(parsed.head), parsed.format)
    except Exception as failure:
        raise from_engine(failure) from failure
    try:
        for piece in pieces:
            if piece:
                inserter.append(piece)
        done = inserter.finish()
    except Exception as failure:
        _cancel(inserter)
        raise _own(failure) from failure
    return done.rows_written, done.bytes_written


def _cancel(inserter):
    try:
        inserter.cancel()
    except Exception:
        pass  # it has already ended; the first error is the one to tell


def _own(failure):
    """Errors of the engine are worded; those of the body's source already are, and a lost client stays what it is."""
    return from_engine(failure) if isinstance(failure, RuntimeError) else failure


def _insert_spooled(connection, parsed, pieces):
    """The engine reads `input()` from a client only; the table function `file` reads the same bytes the same way."""
    with tempfile.NamedTemporaryFile(prefix="sluice-insert-") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        call = b"file(%s, %s, %s)" % (
            quoted(file.name).encode(),
            quoted(parsed.format).encode(),
            parsed.structure,
        )
        done = run(connection, _text(parsed.before + call + parsed.after))
    return done.rows_written(), done.bytes_written()


def _text(statement_bytes):
    try:
        return statement_bytes.decode()
    except UnicodeDecodeError as bad:
        raise error(62, "SYNTAX_ERROR", f"the statement is not UTF-8: {bad}") from bad
