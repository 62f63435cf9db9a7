# SPDX-License-Identifier: Apache-2.0
"""Texts to score: sources and translations that arrive at different times."""

import contextlib
import os
from pathlib import Path
from threading import Timer

from dat_jax.evaluation.texts import TextConfig
from dat_jax.runs.workdir import Run


def test_a_translation_may_arrive_as_late_as_its_source(tmp_path: Path):
    (tmp_path / "sources").write_text("acht\nneun\n")
    reading, writing = os.pipe()
    asked = TextConfig(
        split="valid",
        input=str(tmp_path / "sources"),
        reference="",
        output="",
        resume=False,
        score=f"/dev/fd/{reading}",
    )
    with contextlib.ExitStack() as stack:
        text = asked.open(Run(tmp_path), stack)
        assert not text.arrives_within(0.0)
        Timer(0.3, os.write, [writing, b"eight\n"]).start()
        assert text.arrives_within(30.0)
        os.close(writing)
    os.close(reading)
