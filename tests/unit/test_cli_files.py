"""What commands write is there whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perch.cli.app import app
from perch.cli.files import write
from perch.domain.errors import Invalid


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file become larger, as a disk does that is full: a part is written, and then an error comes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("anew", [False, True])
def test_what_finds_no_room_leaves_nothing_behind_and_is_named(tmp_path: Path, anew: bool) -> None:
    """Neither half a file nor the temporary one; an empty one would stand in the way of the next attempt."""
    with room_for(10), pytest.raises(OSError, match=r"model\.onnx") as found:
        write(tmp_path / "model.onnx", b"x" * 100, anew=anew)
    assert found.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_stays_as_it_was_if_its_successor_finds_no_room(tmp_path: Path) -> None:
    """It is exchanged when the new one is whole."""
    file = tmp_path / "model.onnx"
    file.write_bytes(b"good")
    with room_for(10), pytest.raises(OSError, match=r"model\.onnx"):
        write(file, b"x" * 100)
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"good"]
    with pytest.raises(Invalid, match="not replaced"):
        write(file, b"other", anew=True)
    write(file, b"other")
    assert file.read_bytes() == b"other"


def test_a_link_is_followed_and_a_pipe_is_written_as_it_is(tmp_path: Path) -> None:
    """Neither is exchanged for a file."""
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write(tmp_path / "link", b"data")
    assert ((tmp_path / "link").is_symlink(), (tmp_path / "file").read_bytes()) == (True, b"data")
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write(tmp_path / "pipe", b"told")
    assert os.read(reader, 100) == b"told"
    os.close(reader)


def test_half_a_pair_of_keys_is_none(tmp_path: Path) -> None:
    """The public half finds no place: the private one goes, too, so that the same command can be said again."""
    (tmp_path / "team.pem").symlink_to(tmp_path / "nowhere" / "team.pem")  # is not there, and cannot be made
    result = CliRunner().invoke(app, ["keys", "new", str(tmp_path / "team")])
    assert (result.exit_code, (tmp_path / "team.key").exists()) == (1, False)
