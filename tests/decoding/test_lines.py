# SPDX-License-Identifier: Apache-2.0
"""Lines are read once, as they arrive, from files, pipes and standard input."""

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from dat_jax.decoding.lines import Extent, Lines
from dat_jax.errors import UserError

BYTES = "acht\n\nsieben \u2028 ü\r\nzwei\rdrei\nneun".encode()
LINES = ["acht", "", "sieben \u2028 ü", "zwei\rdrei", "neun"]


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


@pytest.fixture
def pipe() -> Iterator[tuple[Lines, int]]:
    """Lines of a pipe, opened by the path that a shell gives it, and the pipe's writing end."""
    reading, writing = os.pipe()
    with Lines(f"/dev/fd/{reading}") as lines:
        os.close(reading)
        yield lines, writing


def test_a_file_is_counted_and_then_read(tmp_path: Path):
    (tmp_path / "text").write_bytes(BYTES)
    with Lines(str(tmp_path / "text")) as lines:
        assert lines.measure() == Extent.of(LINES)
        assert lines.arrives_within(0.0)
        assert list(lines) == LINES


def test_an_extent_counts_lines_and_distinguishes_texts():
    texts = [["acht", "neun"], ["acht"], ["achtneun"], ["acht", "", "neun"], ["acht", "neuN"], []]
    extents = [Extent.of(iter(text)) for text in texts]
    assert [extent.lines for extent in extents] == [len(text) for text in texts]
    assert len({extent.sha256 for extent in extents}) == len(texts)


def test_a_fifo_is_opened_once_and_not_counted(fifo: Path):
    writer = Thread(target=fifo.write_bytes, args=[BYTES])
    writer.start()
    with Lines(str(fifo)) as lines:
        assert lines.measure() is None
        assert list(lines) == LINES
    writer.join()


def test_long_texts_are_read_whole(tmp_path: Path):
    expected = ["x" * n for n in (1, 3_000_000, 0, 7)] + ["acht"] * 9_000
    (tmp_path / "text").write_text("\n".join(expected))
    with Lines(str(tmp_path / "text")) as lines:
        assert lines.measure() == Extent.of(expected)
        assert list(lines) == expected


def test_the_rest_of_standard_input_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "text").write_bytes(BYTES)
    with (tmp_path / "text").open() as file:
        os.lseek(file.fileno(), len(b"acht\n\n"), os.SEEK_SET)
        monkeypatch.setattr("sys.stdin", file)
        with Lines("-") as lines:
            assert lines.measure() == Extent.of(LINES[2:])
            assert list(lines) == LINES[2:]
        file.fileno()  # still open
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UserError, match="standard input is closed"):
        Lines("-")


def test_arrives_within_waits_for_a_whole_line(pipe: tuple[Lines, int]):
    lines, writing = pipe
    iterator = iter(lines)
    os.write(writing, b"acht\nsieben\nne")
    assert lines.arrives_within(0.0)
    assert next(iterator) == "acht"
    assert lines.arrives_within(0.0)
    assert next(iterator) == "sieben"
    started = time.monotonic()
    assert not lines.arrives_within(0.2)
    assert time.monotonic() - started >= 0.2
    os.write(writing, b"un\nelf")
    assert lines.arrives_within(0.0)
    assert next(iterator) == "neun"
    assert not lines.arrives_within(0.0)
    os.close(writing)
    assert lines.arrives_within(0.0)
    assert next(iterator) == "elf"
    assert lines.arrives_within(0.0)
    assert list(iterator) == []


def test_a_non_blocking_pipe_is_read_to_its_end(pipe: tuple[Lines, int]):
    lines, writing = pipe
    os.set_blocking(lines._file.fileno(), False)

    def write() -> None:
        for part in (b"ac", b"ht\n", b"neun\n"):
            time.sleep(0.05)
            os.write(writing, part)
        os.close(writing)

    writer = Thread(target=write)
    writer.start()
    assert list(lines) == ["acht", "neun"]
    writer.join()


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="pipes have a fixed size here")
def test_a_pipe_is_large_enough_for_a_window(pipe: tuple[Lines, int]):
    _, writing = pipe
    os.set_blocking(writing, False)
    assert os.write(writing, b"acht\n" * 100_000) == 500_000


@pytest.mark.parametrize(
    "text, message",
    [
        (b"", "text is empty: put one sentence on each line"),
        (b"acht\n\xff\nneun\n", "text is not UTF-8 at line 2"),
        (None, "text: No such file or directory: name a file with one sentence per line"),
        ("folder", "text: Is a directory: name a file with one sentence per line"),
    ],
)
def test_unreadable_input_is_an_error(tmp_path: Path, text: bytes | str | None, message: str):
    path = tmp_path / "text"
    match text:
        case bytes():
            path.write_bytes(text)
        case str():
            path.mkdir()
    with pytest.raises(UserError, match=message), Lines(str(path)) as lines:
        lines.measure()


def test_an_empty_pipe_is_an_error_when_it_is_read(pipe: tuple[Lines, int]):
    lines, writing = pipe
    os.close(writing)
    assert lines.measure() is None
    with pytest.raises(UserError, match="is empty"):
        list(lines)
