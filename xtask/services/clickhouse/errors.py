"""Errors as a ClickHouse server words them: the code in the text and in a header, the HTTP status by the code."""

import re

VERSION_SUFFIX = re.compile(r"(\s*\(version [^()]*(\(official build\))?\)\.?)+\s*$")

# HTTPHandler's table of the server; what it does not name is 500.
STATUS = {
    **dict.fromkeys(
        # parsing, types, columns
        (6, 15, 16, 20, 25, 26, 27, 33, 36, 38, 41, 44, 50, 53, 62, 69, 72, 117, 167, 168, 306, 321, 371, 456, 457, 636),
        400,
    ),
    516: 403,
    192: 403,
    193: 403,
    **dict.fromkeys((46, 47, 56, 60, 73, 78, 81, 115), 404),
    159: 408,
    223: 413,
    48: 501,
    202: 503,
    209: 503,
}


class ClickHouseError(Exception):
    """An error with the server's code. `str()` is the text that goes to the client, without the line end."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code

    @property
    def status(self):
        return STATUS.get(self.code, 500)


def error(code, name, message):
    return ClickHouseError(code, f"Code: {code}. DB::Exception: {message} ({name})")


def from_engine(exception):
    """The engine's exception, without the prefixes of its Python binding and without its version."""
    if isinstance(exception, ClickHouseError):
        return exception
    text = str(exception)
    found = re.search(r"Code: (\d+)", text)
    if not found:
        return error(1002, "UNKNOWN_EXCEPTION", text or type(exception).__name__)
    return ClickHouseError(int(found.group(1)), VERSION_SUFFIX.sub("", text[found.start() :]).rstrip())


def line(failure, version):
    """As the server ends its message: clients recognise an error in the middle of an answer by this end."""
    return f"{failure} (version {version} (official build))\n".encode()
