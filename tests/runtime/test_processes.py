# SPDX-License-Identifier: Apache-2.0
"""Communication between processes; nobody waits for a lost one."""

import signal
from pathlib import Path

import pytest

from dat_jax.errors import UserError
from dat_jax.runtime.processes import by_first, check_shared, count, gather, is_first
from tests.scripts.calls import check_refusal
from tests.several import run_together, statement


def test_a_single_process_is_first_and_alone(tmp_path: Path):
    assert (count(), is_first(), gather("mine"), by_first(lambda: 3)) == (1, True, ["mine"], 3)
    check_shared(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="ours"):
        by_first(failing)


def failing() -> None:
    raise UserError("ours")


@pytest.mark.slow
def test_values_are_gathered_in_order_and_only_the_first_acts(tmp_path: Path):
    text = "str(gather([index(), 'ä' * index()]) + [by_first(lambda: 10 + index())]) + '\\n'"
    file = f"open('{tmp_path}/' + str(index()), 'w')"
    ends = run_together(statement(f"print(index()); {file}.write({text})"))
    assert [end.status for end in ends] == [0, 0], ends
    assert [end.stdout for end in ends] == ["0\n", ""]
    for number in (0, 1):
        assert (tmp_path / str(number)).read_text() == "[[0, ''], [1, 'ä'], 10]\n"


@pytest.mark.slow
def test_sigterm_ends_a_process_after_training():
    """During training JAX's runtime catches the signal, and would keep doing so."""
    trains = (
        "agreement = agreeing_to_stop(); agreement.__enter__(); agreement.__exit__(*[None] * 3)"
    )
    # The first process coordinates the other, which would abort if it ended first.
    waits = "gather(0); signal.sigtimedwait([], 1 - index())"
    asked = "os.kill(os.getpid(), signal.SIGTERM); signal.sigtimedwait([], 5); os._exit(3)"
    ends = run_together(statement(f"{trains}; {waits}; {asked}"))
    assert [end.status for end in ends] == [-signal.SIGTERM] * 2, ends


@pytest.mark.slow
def test_an_error_of_the_first_process_is_raised_in_all(tmp_path: Path):
    refused = "by_first(lambda: [][index()] if index() else (_ for _ in ()).throw(UserError('no')))"
    for end in run_together(statement(refused)):
        check_refusal(end, "no")


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_if_one_process_is_killed_the_other_ends(killed: int):
    kill = f"index() == {killed} and os.kill(os.getpid(), signal.SIGKILL)"
    ends = run_together(statement(f"gather(0); {kill}; gather(1)"))
    assert ends[killed].status == -signal.SIGKILL
    assert ends[1 - killed].status not in (0, None)
    named = ["the leader (usually slice 0 task 0)", "stopped sending heartbeats):\n1\n"]
    assert named[killed] in ends[1 - killed].stderr


@pytest.mark.slow
def test_if_one_process_fails_both_end():
    ends = run_together(statement("by_first(lambda: open('/no/file'))"))
    check_refusal(ends[0], "/no/file: No such file or directory")
    assert ends[1].status not in (0, None)
