"""Zip archives: what torch and NumPy write is read, and nothing that could be read in two ways."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perch.artifacts import inspect
from perch.artifacts.errors import ArtifactRefused
from perch.artifacts.zip_archive import MAX_MEMBERS, read_archive
from tests.hostile.made import zipped

ENTRIES = {"m/a": b"first", "m/b": b"second" * 40, "m/c": b""}


def written(write: object) -> bytes:
    """What a library writes into a buffer."""
    buffer = io.BytesIO()
    write(buffer)  # type: ignore[operator]  # a function of a buffer
    return buffer.getvalue()


def big(member: bytes) -> bytes:
    """An archive whose sizes are told in zip64 fields, as writers do that do not know them beforehand."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("m/a", "w", force_zip64=True) as file:
        file.write(member)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        zipped(ENTRIES),
        zipped(ENTRIES, compress=True),
        big(b"x" * 100),
        zipped({}),
        written(lambda file: np.savez(file, a=np.arange(9), b=np.zeros((2, 3)))),
        written(lambda file: np.savez_compressed(file, a=np.arange(900))),
        written(lambda file: torch.save({"w": torch.zeros(5)}, file)),
    ],
)
def test_what_libraries_write_is_read_as_they_read_it(data: bytes) -> None:
    """Every member, byte for byte; stored ones without a copy."""
    found = read_archive(data)
    found.check()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert list(found.members) == archive.namelist()
        for name, member in found.members.items():
            assert found.read(name, 10_000) == archive.read(name)
            if not member.compressed:
                assert found.view(name).obj is data


def test_a_memoryview_is_as_good_as_bytes() -> None:
    """Files come in memory of their own."""
    assert read_archive(memoryview(zipped(ENTRIES))).read("m/a", 10) == b"first"


def test_a_member_is_read_up_to_a_limit() -> None:
    """So that whoever reads a text knows how much memory it takes."""
    found = read_archive(zipped(ENTRIES, compress=True))
    with pytest.raises(ArtifactRefused, match="m/b has 240 bytes; at most 239 are read"):
        found.read("m/b", 239)
    with pytest.raises(ArtifactRefused, match="m/b is compressed"):
        found.view("m/b")


def test_compressed_members_are_bounded_together() -> None:
    """By what they declare, before one is inflated."""
    data = zipped(ENTRIES, compress=True)
    read_archive(data, max_inflated=245)
    with pytest.raises(ArtifactRefused, match="declare 245 bytes; at most 244"):
        read_archive(data, max_inflated=244)


def test_a_changed_byte_is_found_by_its_check_sum() -> None:
    """A damaged upload is not registered."""
    data = bytearray(zipped(ENTRIES))
    data[data.index(b"first")] ^= 1
    with pytest.raises(ArtifactRefused, match="m/a is damaged"):
        read_archive(bytes(data)).check()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d[:-1], "cut short or has bytes behind its end"),
        (lambda d: d + b"\0", "cut short or has bytes behind its end"),
        (lambda d: b"\0" + d, "not where its end says"),
        (lambda d: d[:-22] + b"\0" * 7 + d[-22:], "not where its end says"),
        (lambda d: d[:-14] + struct.pack("<HH", 2, 3) + d[-10:], "has a comment or several parts"),
        (lambda d: d[:-14] + struct.pack("<HH", 2, 2) + d[-10:], "does not end where it says"),
        (lambda d: d[:-14] + struct.pack("<HH", 4, 4) + d[-10:], "directory is cut short"),
        (lambda d: d.replace(b"PK\x01\x02", b"PK\x01\x03", 1), "directory is damaged"),
        (lambda d: d.replace(b"PK\x03\x04", b"PK\x03\x05", 1), "tell different things"),
        (lambda d: d.replace(b"m/a", b"m/x", 1), "tell different things"),
        (lambda d: d.replace(struct.pack("<L", 240), struct.pack("<L", 239), 2), "tell different sizes"),
        (lambda d: d.replace(struct.pack("<L", 240), struct.pack("<L", 239)), "tell different sizes"),
    ],
)
def test_an_archive_that_two_readers_could_see_differently_is_refused(change: object, words: str) -> None:
    """Whatever its parts disagree about."""
    with pytest.raises(ArtifactRefused, match=words):
        read_archive(change(zipped(ENTRIES)))  # type: ignore[operator]  # a function of bytes


def test_members_are_counted_before_they_are_read() -> None:
    """The number is in the file's last bytes."""
    data = zipped(ENTRIES)
    many = struct.pack("<HH", 65_534, 65_534)
    with pytest.raises(ArtifactRefused, match=f"at most {MAX_MEMBERS:,} are read"):
        read_archive(data[:-14] + many + data[-10:])


@pytest.mark.parametrize("name", ["model.pt2", "model.skops", "model.pt", "model.zip", "model.onnx"])
def test_an_archive_of_too_many_members_is_not_listed_by_anybody(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even to guess what it is: a name of four bytes would become an object of hundreds."""
    data = zipped({f"{number:05}": b"" for number in range(MAX_MEMBERS + 1)})
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(ArtifactRefused, match=r"at most 20,000 are read|an archive is not a model|are a zip archive"):
        inspect(name, data)


@given(st.data())
def test_what_is_accepted_means_the_same_to_the_standard_library(data: st.DataObject) -> None:
    """Whatever bits are flipped and wherever it is cut: the two agree about what is in it, or it is refused."""
    whole = bytearray(data.draw(st.sampled_from([zipped(ENTRIES), zipped(ENTRIES, compress=True), big(b"x" * 9)])))
    for position in data.draw(st.lists(st.integers(0, len(whole) * 8 - 1), max_size=3)):
        whole[position // 8] ^= 1 << position % 8
    whole = whole[: data.draw(st.integers(0, len(whole)) | st.just(len(whole)))]
    with suppress(ArtifactRefused):
        found = read_archive(bytes(whole))
        found.check()
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            assert {name: archive.read(name) for name in archive.namelist()} == {
                name: found.read(name, 10_000) for name in found.members
            }


def padded(name: str, extra: bytes) -> bytes:
    """An archive of one member with extra fields in its directory."""
    buffer = io.BytesIO()
    entry = zipfile.ZipInfo(name)
    entry.extra = extra
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(entry, b"first")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "extra",
    [
        struct.pack("<2HBL", 0x7075, 8, 1, zlib.crc32(b"m/a")) + b"m/b",
        struct.pack("<2HB", 0x7075, 1, 1),
        struct.pack("<2HBL", 0x6375, 6, 1, 0) + b"x",
        struct.pack("<2HQ", 1, 8, 5) * 2,
        struct.pack("<2H", 0x4246, 5) + b"four",
        b"FB",
    ],
)
def test_an_extra_field_that_readers_heed_or_not_is_refused(extra: bytes) -> None:
    """Python 3.13 takes a member's name from one of them, other readers do not: it would be loaded under another."""
    with pytest.raises(ArtifactRefused, match="extra fields of m/a could be read in two ways"):
        read_archive(padded("m/a", extra))


def test_a_name_that_is_not_marked_as_utf8_is_ascii() -> None:
    """Readers without the mark take its bytes for those of another character set."""
    marked = padded("m/ä", b"")
    assert read_archive(marked).read("m/ä", 9) == b"first"
    unmarked = marked.replace(struct.pack("<2H", 20, 0x800), struct.pack("<2H", 20, 0))
    with pytest.raises(ArtifactRefused, match="'m/ä' in the zip archive is not marked as UTF-8"):
        read_archive(unmarked)


def test_a_version_of_the_format_that_readers_do_not_know_is_refused() -> None:
    """The standard library stops there, so nobody else should go on."""
    entry = zipfile.ZipInfo("m/a")
    entry.extract_version = 64
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(entry, b"first")
    with pytest.raises(ArtifactRefused, match=r"needs version 6\.4 of the zip format; at most 6\.3 is read"):
        read_archive(buffer.getvalue())
