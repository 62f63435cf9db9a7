# SPDX-License-Identifier: Apache-2.0
"""Metrics on disk: stale lines are dropped, and a full disk is noticed at once."""

import json
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

from dat_jax.training import writers as logging
from dat_jax.training.writers import MetricWriter, Progress
from tests.storage.test_files import size_limit


def events(folder: Path) -> list[Event]:
    """All events of the one file in a TensorBoard folder."""
    (file,) = folder.iterdir()
    data, found = file.read_bytes(), []
    while data:
        size = int.from_bytes(data[:8], "little")
        found.append(Event.FromString(data[12 : 12 + size]))
        data = data[12 + size + 4 :]
    return found


def test_metrics_continue_after_the_resumed_step(tmp_path: Path):
    path, folder = tmp_path / "metrics.jsonl", tmp_path / "tensorboard"
    lines = [json.dumps({"step": step, "train/loss": 1.5}) + "\n" for step in (2, 4, 6)]
    path.write_text("".join(lines) + '{"step": 8, "tr')
    with MetricWriter(path, folder, 4) as writer:
        writer.write(5, {"train/loss": 0.5, "train/speed": 2.0})
        assert path.read_text().splitlines()[2:] == [
            '{"step": 5, "train/loss": 0.5, "train/speed": 2.0}'
        ]
        assert len(events(folder)) == 4  # written at once, not at the end
    first, start, *scalars = events(folder)
    assert first.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (5, SessionLog.START)
    values = [(e.step, e.summary.value[0].tag, e.summary.value[0].simple_value) for e in scalars]
    assert values == [(5, "train/loss", 0.5), (5, "train/speed", 2.0)]


def test_time_left_follows_the_speed_since_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Steps of an earlier launch do not count."""
    values = {"epoch": 2.25, "loss": 1.25, "perplexity": 3.5, "tokens_per_second": 3.0}
    now = [100.0]
    monkeypatch.setattr(logging.time, "monotonic", lambda: now[0])
    with Progress(first_step=900, steps=1_000) as progress:
        now[0] += 20
        progress.show(910, values)
    line = "step 910 of 1,000: epoch 2.25, loss 1.250, perplexity 3.50, 3 tokens/s, 03:00 left\n"
    assert capsys.readouterr().err == line


def test_a_lap_lasts_since_the_last_one_or_since_a_skip(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr(logging.time, "monotonic", lambda: now[0])
    with Progress(first_step=0, steps=10) as progress:
        for seconds in (3, 2):
            now[0] += seconds
            assert progress.lap() == seconds
        now[0] += 7
        progress.skip()
        now[0] += 1
        assert progress.lap() == 1


@pytest.mark.parametrize("full", ["metrics", "events"])
def test_a_full_disk_is_noticed_and_closes_everything(
    tmp_path: Path, full: str, monkeypatch: pytest.MonkeyPatch
):
    """The line or the event is longer than the largest file allowed, 1 MiB."""
    path, closed = tmp_path / "metrics.jsonl", []
    monkeypatch.setattr(RecordWriter, "close", lambda self: closed.append(self._writer.close()))
    name = "x" * (1 << 21)
    if full == "events":
        monkeypatch.setattr("dat_jax.training.writers.json.dumps", lambda _: "short")
    writer = MetricWriter(path, tmp_path / "tensorboard", 0)
    with size_limit(1 << 20), pytest.raises(OSError, match="too large"), writer:
        writer.write(1, {name: 0.5})
    assert writer._lines.closed
    assert closed or full == "events"
