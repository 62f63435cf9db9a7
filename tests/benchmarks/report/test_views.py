# SPDX-License-Identifier: Apache-2.0
"""Lines that tables refuse."""

import pytest

from benchmarks.report.views import VIEWS
from dat_jax.errors import UserError
from tests.benchmarks.report.lines import TABLE1


@pytest.mark.parametrize("view", VIEWS)
def test_lines_that_no_table_tells_apart_are_refused(view: str):
    argument = "32" if view in ("against_time", "by_beam") else "test"
    other = TABLE1[0] | {"config_sha256": "another"}
    with pytest.raises(UserError, match="2 lines are of aligned, seed 0, test, fixed:1: remove"):
        VIEWS[view]([*TABLE1, other], argument)
