"""Bytes of requests and answers: chunked bodies, content encodings, and ClickHouse's own compressed blocks."""

import bz2
import lzma
import os
import struct
import zlib

import lz4.block
import lz4.frame
import zstandard
from clickhouse_cityhash.cityhash import CityHash128

from errors import error

PIECE = 1 << 18  # bytes read at once
BLOCK = 1 << 20  # uncompressed bytes in one compressed block, the server's default
BLOCK_LIMIT = 1 << 30  # uncompressed bytes that a block may claim, the server's limit
LINE_LIMIT = 1 << 12  # bytes of a chunk's size line

_LZ4, _ZSTD, _NONE = 0x82, 0x90, 0x02


class Truncated(Exception):
    """The client went away in the middle of its body."""


class RequestBody:
    """What the client sends, without its framing. `drain` reads the rest, so that the connection can be used again."""

    def __init__(self, file, headers):
        self._file = file
        self._chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        try:
            self._left = 0 if self._chunked else int(headers.get("Content-Length") or 0)
        except ValueError:
            raise error(36, "BAD_ARGUMENTS", "Content-Length is not a number") from None
        self._ended = not self._chunked and self._left <= 0

    def __iter__(self):
        while not self._ended:
            if self._left == 0:
                self._left = self._chunk_size()
                if self._left == 0:
                    self._ended = True
                    return
            piece = self._file.read1(min(self._left, PIECE))
            if not piece:
                self._ended = True
                raise Truncated()
            self._left -= len(piece)
            if self._left == 0:
                if self._chunked:
                    self._line()
                else:
                    self._ended = True
            yield piece

    def drain(self, limit):
        """Whether the whole body was read within this many bytes."""
        if self._ended:
            return True
        for piece in self:
            limit -= len(piece)
            if limit < 0:
                return False
        return True

    def _chunk_size(self):
        line = self._line().split(b";")[0].strip()
        try:
            size = int(line, 16)
        except ValueError:
            self._ended = True
            raise error(36, "BAD_ARGUMENTS", "a chunk of the body has no size") from None
        if size == 0:
            while self._line():
                pass
        return size

    def _line(self):
        line = self._file.readline(LINE_LIMIT)
        if not line.endswith(b"\n"):
            self._ended = True
            raise Truncated()
        return line.rstrip(b"\r\n")


def _decoder(encoding):
    if encoding in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(zlib.MAX_WBITS | 32)
    if encoding == "zstd":
        return zstandard.ZstdDecompressor().decompressobj()
    if encoding == "lz4":
        return lz4.frame.LZ4FrameDecompressor()
    if encoding == "xz":
        return lzma.LZMADecompressor()
    if encoding == "bz2":
        return bz2.BZ2Decompressor()
    raise error(48, "NOT_IMPLEMENTED", f"this door does not read the content encoding {encoding!r}")


def decoded(pieces, encoding):
    """The body without its content encoding; several frames behind each other are one body."""
    encoding = (encoding or "identity").strip().lower()
    if encoding in ("", "identity"):
        yield from pieces
        return
    decoder = _decoder(encoding)
    started = False
    try:
        for piece in pieces:
            while piece:
                if decoder.eof:
                    decoder, started = _decoder(encoding), False
                out = decoder.decompress(piece)
                started = True
                piece = decoder.unused_data if decoder.eof else b""
                if out:
                    yield out
    except (zlib.error, zstandard.ZstdError, lzma.LZMAError, RuntimeError, OSError, ValueError) as bad:
        raise error(354, "ZLIB_INFLATE_FAILED", f"the body is not {encoding}: {bad}") from bad
    if started and not decoder.eof:
        raise error(354, "ZLIB_INFLATE_FAILED", f"the {encoding} body ends too early")


def _checksum(data):
    # The hash as ClickHouse writes it: the two halves of this library's number, each little-endian, the upper one first.
    value = CityHash128(data)
    return struct.pack("<QQ", value >> 64, value & (1 << 64) - 1)


def from_blocks(pieces):
    """The body of `decompress=1`: blocks with a checksum each."""
    buffer = bytearray()
    pieces = iter(pieces)

    def fill(size):
        while len(buffer) < size:
            piece = next(pieces, None)
            if piece is None:
                return False
            buffer.extend(piece)
        return True

    while fill(1):
        if not fill(25):
            raise error(271, "CANNOT_DECOMPRESS", "a compressed block ends in its header")
        method, size, plain = struct.unpack_from("<BII", buffer, 16)
        if size < 9 or size > BLOCK_LIMIT or plain > BLOCK_LIMIT:
            raise error(432, "UNKNOWN_CODEC", "sizes of a compressed block are not plausible")
        if not fill(16 + size):
            raise error(271, "CANNOT_DECOMPRESS", "a compressed block ends too early")
        block = bytes(buffer[16 : 16 + size])
        if _checksum(block) != bytes(buffer[:16]):
            raise error(40, "CHECKSUM_DOESNT_MATCH", "Checksum doesn't match: corrupted data")
        del buffer[: 16 + size]
        try:
            if method == _LZ4:
                yield lz4.block.decompress(block[9:], uncompressed_size=plain)
            elif method == _ZSTD:
                yield zstandard.ZstdDecompressor().decompress(block[9:], max_output_size=plain)
            elif method == _NONE:
                yield block[9:]
            else:
                raise error(432, "UNKNOWN_CODEC", f"Unknown codec family code: {method}")
        except (lz4.block.LZ4BlockError, zstandard.ZstdError) as bad:
            raise error(271, "CANNOT_DECOMPRESS", f"a compressed block is damaged: {bad}") from bad


class Blocks:
    """An answer for `compress=1`."""

    name = None

    def __init__(self):
        self._buffer = bytearray()

    def add(self, data):
        self._buffer.extend(data)
        out = b""
        while len(self._buffer) >= BLOCK:
            out += self._cut(BLOCK)
        return out

    def finish(self):
        return self._cut(BLOCK) if self._buffer else b""

    def _cut(self, size):
        plain = bytes(self._buffer[:size])
        del self._buffer[:size]
        packed = lz4.block.compress(plain, store_size=False)
        block = struct.pack("<BII", _LZ4, len(packed) + 9, len(plain)) + packed
        return _checksum(block) + block


class Plain:
    name = None

    def add(self, data):
        return data

    def finish(self):
        return b""


class Encoded:
    """An answer in a content encoding that the client accepts."""

    def __init__(self, name):
        self.name = name
        if name == "zstd":
            self._coder = zstandard.ZstdCompressor(level=1).compressobj()
        elif name == "lz4":
            self._coder = lz4.frame.LZ4FrameCompressor()
        else:
            bits = zlib.MAX_WBITS | (16 if name == "gzip" else 0)
            self._coder = zlib.compressobj(3, zlib.DEFLATED, bits)
        self._begun = name != "lz4"

    def add(self, data):
        out = b""
        if not self._begun:
            self._begun = True
            out = self._coder.begin()
        return out + self._coder.compress(data)

    def finish(self):
        return self.add(b"") + self._coder.flush()


def answer_coder(compress, accepted, enabled):
    """How the answer is packed: the client's wishes, the server's order of preference."""
    if compress:
        return Blocks()
    if enabled:
        wishes = [w.split(";")[0].strip().lower() for w in (accepted or "").split(",")]
        for name in ("gzip", "deflate", "zstd", "lz4"):
            if name in wishes:
                return Encoded(name)
    return Plain()


def tag():
    """A word that no answer contains, which marks an error in the middle of one."""
    return "".join(chr(97 + byte % 26) for byte in os.urandom(16)).encode()
