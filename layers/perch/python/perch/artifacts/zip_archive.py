"""Read a zip archive strictly: one that could be read in two ways is not read at all.

    the end ─► the directory ─► every member's own header ─► names, sizes and places agree, and nothing else is there

Torch, NumPy and skops keep models in zip archives, each with a reader of its own, and a file that two readers see
differently could be inspected as one model and loaded as another. So the archive has to be what an ordinary writer
makes: members end to end from the first byte, each told twice and in the same words, then the directory, then the end.
Refused in words: a cut or padded file, members that overlap or hide between others, a name twice (however it is
capitalised) or in two spellings, a name that leads elsewhere, links, encryption, unknown compression, a later version
of the format, and sizes that do not fit the file.

Stored members are views of the file. Compressed ones are inflated up to what they declare and never further, and what
they declare together is bounded before the first is read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .data import Data
from .errors import ArtifactRefused

MAX_MEMBERS = 20_000
MAX_NAME = 512
MAX_INFLATED = 64 * 1024 * 1024
"""Bytes that all compressed members may declare together, unless the caller says otherwise."""

_STORED, _DEFLATED = 0, 8
_DESCRIPTOR, _UTF8 = 0x0008, 0x0800
_FLAGS = _DESCRIPTOR | _UTF8 | 0x0006  # 0x0006 tells how hard deflate tried
_FULL = 0xFFFFFFFF
_CHUNK = 1024 * 1024
_LINK = 0o120000
_LATEST = 63  # version 6.3 of the format: no reader that matters here goes on above it
_ZIP64, _OTHER_NAME, _OTHER_COMMENT = 0x0001, 0x7075, 0x6375

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file of the archive: where its bytes are, how many, and how many they become when inflated."""

    name: str
    start: int
    stored: int
    size: int
    compressed: bool
    crc: int


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A zip archive whose directory agrees with the file, in the order of the file."""

    data: Data
    members: Mapping[str, Member]

    def view(self, name: str) -> memoryview:
        """Return a stored member's bytes without a copy. Raises `ArtifactRefused` for a compressed one."""
        member = self.members[name]
        if member.compressed:
            raise ArtifactRefused(f"{name} is compressed; it has to be stored as it is")
        return memoryview(self.data)[member.start : member.start + member.stored]

    def read(self, name: str, limit: int) -> bytes:
        """Return a member's bytes, inflated. Raises `ArtifactRefused` if it has more than `limit`, or lies."""
        member = self.members[name]
        if member.size > limit:
            raise ArtifactRefused(f"{name} has {member.size:,} bytes; at most {limit:,} are read")
        return b"".join(self._chunks(member))

    def check(self) -> None:
        """Compare every member with its check sum. Raises `ArtifactRefused`."""
        for member in self.members.values():
            crc = 0
            for chunk in self._chunks(member):
                crc = zlib.crc32(chunk, crc)
            if crc != member.crc:
                raise ArtifactRefused(f"{member.name} is damaged: its check sum is another one; upload the file again")

    def _chunks(self, member: Member) -> Iterator[bytes | memoryview]:
        raw = memoryview(self.data)[member.start : member.start + member.stored]
        if not member.compressed:
            yield from (raw[at : at + _CHUNK] for at in range(0, len(raw), _CHUNK))
            return
        inflater, size = zlib.decompressobj(-15), 0
        rest: bytes | memoryview = raw
        try:
            while not inflater.eof:
                # One byte more than declared is enough to know.
                chunk = inflater.decompress(rest, min(_CHUNK, member.size - size + 1))
                rest = inflater.unconsumed_tail
                size += len(chunk)
                if size > member.size or (not chunk and not rest and not inflater.eof):
                    break
                yield chunk
        except zlib.error as error:
            raise ArtifactRefused(f"{member.name} cannot be inflated: {error}") from error
        if size != member.size or not inflater.eof or rest or inflater.unused_data:
            raise ArtifactRefused(f"{member.name} does not inflate to the {member.size:,} bytes that it declares")


def read_archive(data: Data, *, max_inflated: int = MAX_INFLATED) -> Archive:
    """Read the directory of a zip archive, sure that the file is just that.

    Args:
        data: the whole file.
        max_inflated: bytes that its compressed members may declare together.

    Raises:
        ArtifactRefused: the archive is damaged, cut short, or made so that it could be read in another way.
    """
    view = memoryview(data)
    count, begin, end = _directory(view)
    entries, at = [], begin
    for _ in range(count):
        member, header, flags, at = _entry(view, at, end)
        entries.append((header, flags, member))
    if at != end:
        raise ArtifactRefused("the zip archive's directory does not end where it says")
    entries.sort(key=lambda entry: entry[0])
    _refuse_doubles([member for _, _, member in entries])
    _refuse_bombs([member for _, _, member in entries], max_inflated)
    edges = [header for header, _, _ in entries] + [begin]
    if edges[0] != 0:
        raise ArtifactRefused("bytes at the beginning of the zip archive belong to no member")
    placed = [
        _placed(view, member, header, flags, until)
        for (header, flags, member), until in zip(entries, edges[1:], strict=True)
    ]
    members = {member.name: member for member in placed}
    return Archive(data=data, members=members)


def _directory(view: memoryview) -> tuple[int, int, int]:
    """How many members there are, and where their directory begins and ends."""
    at = len(view) - _END.size
    if at < 0 or bytes(view[at : at + 4]) != b"PK\x05\x06":
        raise ArtifactRefused("the zip archive is cut short or has bytes behind its end; upload it again")
    _, disk, other, here, count, size, begin, comment = _END.unpack(view[at:])
    if disk or other or here != count or comment:
        raise ArtifactRefused("the zip archive's end is not what a writer makes: it has a comment or several parts")
    locator = at - _LOCATOR.size
    if locator >= _END64.size and bytes(view[locator : locator + 4]) == b"PK\x06\x07":
        count, size, begin, at = _directory64(view, locator, (count, size, begin))
    if count > MAX_MEMBERS:
        raise ArtifactRefused(f"the zip archive has {count:,} members; at most {MAX_MEMBERS:,} are read")
    if begin + size != at:
        raise ArtifactRefused("the zip archive's directory is not where its end says: the file is cut short or padded")
    return count, begin, begin + size


def _directory64(view: memoryview, locator: int, small: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """The same of a large archive, which tells it in wider numbers; the narrow ones agree or are full."""
    _, disk, place, disks = _LOCATOR.unpack(view[locator : locator + _LOCATOR.size])
    at = locator - _END64.size
    mark, length, _, _, one, other, here, count, size, begin = _END64.unpack(view[at:locator])
    if mark != b"PK\x06\x06" or length != _END64.size - 12 or place != at or disk or disks != 1 or one or other:
        raise ArtifactRefused("the zip archive's zip64 end is not what a writer makes")
    full = (0xFFFF, _FULL, _FULL)
    agree = all(narrow in (wide, most) for narrow, wide, most in zip(small, (count, size, begin), full, strict=True))
    if here != count or not agree:
        raise ArtifactRefused("the zip archive's two ends tell different things")
    return count, size, begin, at


def _entry(view: memoryview, at: int, end: int) -> tuple[Member, int, int, int]:
    """One entry of the directory: the member (not placed yet), its header's place, its flags, the next entry."""
    if at + _ENTRY.size > end:
        raise ArtifactRefused("the zip archive's directory is cut short")
    fields = _ENTRY.unpack(view[at : at + _ENTRY.size])
    mark, _, needs, flags, method, _, _, crc, stored, size = fields[:10]
    name_length, extra_length, comment, disk, _, mode, header = fields[10:]
    begin = at + _ENTRY.size
    after = begin + name_length + extra_length
    if mark != b"PK\x01\x02" or after > end:
        raise ArtifactRefused("the zip archive's directory is damaged")
    name = _name(bytes(view[begin : begin + name_length]))
    if flags & 0x0001:
        raise ArtifactRefused(f"{name} is encrypted")
    if needs > _LATEST:
        raise ArtifactRefused(f"{name} needs version {needs / 10} of the zip format; at most {_LATEST / 10} is read")
    if not name.isascii() and not flags & _UTF8:  # in which case some readers take it for code page 437
        raise ArtifactRefused(f"the name {name!r} in the zip archive is not marked as UTF-8")
    if flags & ~_FLAGS or comment or disk or method not in (_STORED, _DEFLATED):
        raise ArtifactRefused(f"{name} is packed in a way that is not read (flags {flags:#x}, method {method})")
    if mode >> 16 & 0o170000 == _LINK:
        raise ArtifactRefused(f"{name} is a link")
    size, stored, header = _wide(bytes(view[begin + name_length : after]), name, (size, stored, header))
    if method == _STORED and size != stored:
        raise ArtifactRefused(f"{name} is stored and declares {size:,} bytes of which {stored:,} are there")
    compressed = method == _DEFLATED
    return Member(name=name, start=0, stored=stored, size=size, compressed=compressed, crc=crc), header, flags, after


def _name(raw: bytes) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise ArtifactRefused("a name in the zip archive is not UTF-8") from None
    shown = repr(name[:80])
    if len(name) > MAX_NAME or not name.isprintable():
        raise ArtifactRefused(f"the name {shown} in the zip archive is too long or holds control characters")
    if "\\" in name or ":" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ArtifactRefused(f"the name {shown} in the zip archive leads outside of it, or names no file")
    return name


def _wide(extra: bytes, name: str, narrow: tuple[int, ...]) -> tuple[int, ...]:
    """Put in the wide numbers of the zip64 extra field where the narrow ones are full."""
    wide = _extra(extra, name).get(_ZIP64, b"")
    if len(wide) % 8 or len(wide) // 8 < narrow.count(_FULL):
        raise ArtifactRefused(f"the size of {name} is missing from the zip archive")
    numbers = iter(struct.unpack(f"<{len(wide) // 8}Q", wide))
    return tuple(next(numbers) if number == _FULL else number for number in narrow)


def _extra(extra: bytes, name: str) -> dict[int, bytes]:
    """The extra fields of a member by their kind; none tells another name, which readers heed or not."""
    fields: dict[int, bytes] = {}
    while extra:
        kind, length = struct.unpack("<2H", extra[:4]) if len(extra) >= 4 else (0, len(extra))
        if kind in fields or kind in (_OTHER_NAME, _OTHER_COMMENT) or len(extra) < 4 + length:
            raise ArtifactRefused(f"the zip archive's extra fields of {name} could be read in two ways")
        fields[kind], extra = extra[4 : 4 + length], extra[4 + length :]
    return fields


def _placed(view: memoryview, member: Member, header: int, flags: int, until: int) -> Member:
    """The member with its place in the file, sure that its own header says what the directory says."""
    name = member.name
    if header + _LOCAL.size > until:
        raise ArtifactRefused(f"{name} overlaps another member of the zip archive")
    fields = _LOCAL.unpack(view[header : header + _LOCAL.size])
    mark, needs, own_flags, method, _, _, crc, stored, size, name_length, extra_length = fields
    begin = header + _LOCAL.size
    start = begin + name_length + extra_length
    told = bytes(view[begin : begin + name_length])
    same = (
        mark == b"PK\x03\x04" and needs <= _LATEST and own_flags == flags and (method == _DEFLATED) == member.compressed
    )
    if not same or told != name.encode():
        raise ArtifactRefused(f"the zip archive's directory and the header of {name} tell different things")
    stop = start + member.stored
    if stop > until:
        raise ArtifactRefused(f"{name} is longer than its place in the zip archive")
    if flags & _DESCRIPTOR:
        tail = bytes(view[stop:until])
        narrow = struct.pack("<4s3L", b"PK\x07\x08", member.crc, member.stored & _FULL, member.size & _FULL)
        wide = struct.pack("<4sL2Q", b"PK\x07\x08", member.crc, member.stored, member.size)
        if tail not in (narrow, wide):
            raise ArtifactRefused(f"what follows {name} in the zip archive is not its own end")
    else:
        sizes = _wide(bytes(view[begin + name_length : start]), name, (size, stored))
        if (*sizes, crc) != (member.size, member.stored, member.crc) or stop != until:
            raise ArtifactRefused(f"the zip archive's directory and the header of {name} tell different sizes")
    return Member(
        name=name, start=start, stored=member.stored, size=member.size, compressed=member.compressed, crc=member.crc
    )


def _refuse_doubles(members: list[Member]) -> None:
    seen: set[str] = set()
    for member in members:
        folded = member.name.casefold()
        if folded in seen:
            raise ArtifactRefused(f"{member.name} is in the zip archive twice")
        seen.add(folded)


def _refuse_bombs(members: list[Member], limit: int) -> None:
    total = sum(member.size for member in members if member.compressed)
    if total > limit:
        raise ArtifactRefused(
            f"the compressed members of the zip archive declare {total:,} bytes; at most {limit:,} are inflated"
        )
