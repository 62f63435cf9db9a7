# SPDX-License-Identifier: Apache-2.0
"""Tables of the lines of `benchmarks.reproduce`, by name."""

from collections.abc import Callable, Sequence

from benchmarks.report.cuts import against_cuts, against_time, by_beam
from benchmarks.report.trainings import by_exit, differences
from benchmarks.results import Line

VIEWS: dict[str, Callable[[Sequence[Line], str], str]] = {
    "by_exit": by_exit,
    "differences": differences,
    "against_cuts": against_cuts,
    "against_time": against_time,
    "by_beam": by_beam,
}
"""Tables by name; each takes lines and a split or a batch size."""
