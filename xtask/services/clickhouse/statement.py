"""Where a statement ends and its data begin, and where an answer's format is named.

A server gets statement and data as one stream of bytes. The embedded engine wants them apart, so this finds the few words that
separate them. It does not parse SQL: it knows strings, quoted names, comments and parentheses, which is what it takes not to
mistake a word inside of them.
"""

import re
from dataclasses import dataclass

TOKEN = re.compile(
    rb"""
      (?P<space>\s+|--[^\n]*|\#[ !][^\n]*|/\*.*?\*/)
    | (?P<string>'(?:[^'\\]|\\.|'')*')
    | (?P<name>"(?:[^"\\]|\\.|"")*"|`(?:[^`\\]|\\.|``)*`)
    | (?P<heredoc>\$(?P<tag>[A-Za-z0-9_]*)\$.*?\$(?P=tag)\$)
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<number>[0-9][A-Za-z0-9_.]*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)

# Statements whose answer is rows; the engine streams them.
ROWS = {b"SELECT", b"WITH", b"SHOW", b"DESCRIBE", b"DESC", b"EXISTS", b"EXPLAIN", b"("}
# What a GET may do: the same, and what changes nothing but the session.
READS = ROWS | {b"CHECK", b"USE", b"SET"}


@dataclass
class Token:
    kind: str
    text: bytes
    start: int
    end: int
    depth: int

    @property
    def upper(self):
        return self.text.upper() if self.kind != "string" else b""

    def is_word(self, *words):
        return self.kind == "word" and self.upper in words


def tokens(text):
    """What is not space, with the depth of parentheses around it."""
    depth = 0
    for match in TOKEN.finditer(text):
        kind = match.lastgroup if match.lastgroup != "tag" else "heredoc"
        if kind == "space":
            continue
        piece = match.group()
        if piece in b")]}":
            depth = max(0, depth - 1)
        yield Token(kind, piece, match.start(), match.end(), depth)
        if piece in b"([{":
            depth += 1


@dataclass
class Insert:
    """INSERT with data behind it: `head` is the statement without them, `rest` the first bytes of the data."""

    head: bytes
    format: str
    rest: bytes


@dataclass
class InsertFromInput:
    """INSERT … SELECT … FROM input('structure') FORMAT x: `before` and `after` stand around the call."""

    before: bytes
    after: bytes
    structure: bytes
    format: str
    rest: bytes


@dataclass
class Rows:
    """A statement that answers with rows: `body` up to the FORMAT clause, `tail` what follows it."""

    body: bytes
    format: str
    tail: bytes


@dataclass
class Other:
    text: bytes
    reads: bool


class Refused(Exception):
    """A statement that no server takes through this door; `name` is the error's name."""

    def __init__(self, code, name, message):
        super().__init__(message)
        self.code, self.name = code, name


def parse(text):
    """Text is the whole statement, or for an INSERT at least all of it up to its data."""
    stream = tokens(text)
    first = next(stream, None)
    if first is None or first.text == b";":
        raise Refused(62, "SYNTAX_ERROR", "Syntax error: empty query")
    if first.is_word(b"INSERT"):
        found = _insert(text, stream)
        if found is not None:
            return found
        return Other(_single(text), reads=False)
    text = _single(text)
    if first.upper not in ROWS:
        return Other(text, reads=first.upper in READS)
    return _rows(text)


def _insert(text, stream):
    """None where no data follow. Stops at the first word that ends the head: what follows may be any bytes."""
    previous = None
    select = False
    call = None
    for token in stream:
        if token.is_word(b"INFILE"):
            raise Refused(48, "NOT_IMPLEMENTED", "FROM INFILE reads files of a client: send the data as the body")
        if select and call is None and token.is_word(b"INPUT"):
            call = _call(text, token)
        if token.depth > 0 or previous is None:
            previous = previous or token
            continue
        if token.is_word(b"SELECT", b"WITH", b"WATCH"):
            select = True
        elif token.is_word(b"VALUES") and not select and not previous.is_word(b"INTO", b"TABLE"):
            return Insert(text[: token.start], "Values", text[token.end :])
        elif token.is_word(b"FORMAT") and not previous.is_word(b"INTO", b"TABLE"):
            name = next(stream, None)
            if name is None or name.kind != "word":
                return None
            if not select:
                return Insert(text[: token.start], name.text.decode(), _data(text, name.end))
            if call is None:
                return None
            start, end, structure = call
            return InsertFromInput(
                text[:start], text[end : token.start], structure, name.text.decode(), _data(text, name.end)
            )
        previous = token
    return None


def _call(text, token):
    """The bounds of `input('structure')` and the structure as it is quoted, or None if it is no such call."""
    rest = [t for _, t in zip(range(3), tokens(text[token.end : token.end + (1 << 16)]))]
    if len(rest) == 3 and rest[0].text == b"(" and rest[1].kind == "string" and rest[2].text == b")":
        return token.start, token.end + rest[2].end, rest[1].text
    return None


def _data(text, at):
    """Data begin behind one line end, or behind the blanks where there is none: the server's own rule."""
    while text[at : at + 1] in (b" ", b"\t", b"\f"):
        at += 1
    if text[at : at + 1] == b"\r":
        at += 1
    if text[at : at + 1] == b"\n":
        at += 1
    return text[at:]


def _single(text):
    """The one statement, without the semicolon behind it."""
    end = None
    for token in tokens(text):
        if end is not None:
            if token.text != b";":
                raise Refused(62, "SYNTAX_ERROR", "Syntax error (Multi-statements are not allowed)")
        elif token.text == b";" and token.depth == 0:
            end = token.start
    return text if end is None else text[:end]


def _rows(text):
    words = [t for t in tokens(text) if t.depth == 0]
    for at, token in enumerate(words):
        if token.is_word(b"OUTFILE") and at > 0 and words[at - 1].is_word(b"INTO"):
            raise Refused(48, "NOT_IMPLEMENTED", "INTO OUTFILE writes files of a client: read the answer instead")
    for at in range(len(words) - 2, 0, -1):
        name, after = words[at + 1], words[at + 2 : at + 3]
        ends = not after or after[0].is_word(b"SETTINGS")
        if words[at].is_word(b"FORMAT") and name.kind == "word" and ends:
            return Rows(text[: words[at].start], name.text.decode(), text[name.end :])
    return Rows(text, "", b"")
