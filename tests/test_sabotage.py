# SPDX-License-Identifier: Apache-2.0
"""The edits of the table still fit the code, and random edits change it."""

import ast
from pathlib import Path

import pytest

from tests.sabotage.__main__ import REPOSITORY
from tests.sabotage.edits import Sabotage, drawn
from tests.sabotage.table import TABLE

MODULES = sorted(
    str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "dat_jax").rglob("*.py")
)


@pytest.mark.parametrize("edit", TABLE, ids=lambda edit: f"{edit.file}: {edit.line}")
def test_each_edit_of_the_table_fits_one_line(edit: Sabotage):
    text = (REPOSITORY / edit.file).read_text(encoding="utf-8")
    broken = edit.broken_text(text)
    assert broken != text
    ast.parse(broken)
    assert all((REPOSITORY / test).exists() for test in edit.test.split())


def test_random_edits_change_the_code_and_depend_on_the_seed():
    draws = [
        [edit for module in MODULES for edit in drawn(REPOSITORY, module, 2, seed)]
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]
    assert len(draws[0]) > len(MODULES)
    for edit in draws[0]:
        text = (REPOSITORY / edit.file).read_text(encoding="utf-8")
        before, after = ast.parse(text), ast.parse(edit.broken_text(text))
        assert ast.dump(before) != ast.dump(after)


def test_swapping_the_arguments_of_a_symmetric_function_is_no_edit(tmp_path: Path):
    (tmp_path / "a.py").write_text("x = np.maximum(a, b)\ny = f(a, b)\n")
    assert [edit.broken for edit in drawn(tmp_path, "a.py", 2, 0)] == ["y = f(b, a)"]


def test_an_edit_whose_line_is_not_unique_is_refused():
    edit = Sabotage("dat_jax/losses.py", "loss", "none")
    with pytest.raises(ValueError, match=r"losses\.py has 2 times: loss"):
        edit.broken_text("loss = loss_of(x)")
