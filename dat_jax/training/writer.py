# SPDX-License-Identifier: Apache-2.0
"""Where metrics go: JSON lines always, TensorBoard files beside them."""

import json
from pathlib import Path

from dat_jax.config import write_text


class MetricWriter:
    """Appends to `workdir/metrics.jsonl` and to `workdir/tensorboard/`; use it as a context."""

    def __init__(self, workdir: Path, last_step: int) -> None:
        """Goes on after `last_step`; later ones, which will be made again, are dropped."""
        from tensorboardX import SummaryWriter  # slow to import, and of use only while training

        path = workdir / "metrics.jsonl"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole_lines = text[: text.rfind("\n") + 1].splitlines(keepends=True)
        kept = "".join(line for line in whole_lines if json.loads(line)["step"] <= last_step)
        if kept != text:
            write_text(path, kept)
        self._lines = path.open("a", encoding="utf-8")
        self._tensorboard = SummaryWriter(str(workdir / "tensorboard"), purge_step=last_step + 1)

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._tensorboard.close()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes one line, and one scalar for each value."""
        self._lines.write(json.dumps({"step": step} | values) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, step)
