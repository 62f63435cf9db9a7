# SPDX-License-Identifier: Apache-2.0
"""Where metrics go: JSON lines always, TensorBoard files beside them."""

import json
from pathlib import Path


class MetricWriter:
    """Appends to `workdir/metrics.jsonl` and to `workdir/tensorboard/`; use it as a context."""

    def __init__(self, workdir: Path) -> None:
        from tensorboardX import SummaryWriter  # slow to import, and of use only while training

        self._lines = (workdir / "metrics.jsonl").open("a", encoding="utf-8")
        self._tensorboard = SummaryWriter(str(workdir / "tensorboard"))

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
