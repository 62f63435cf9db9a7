# SPDX-License-Identifier: Apache-2.0
"""Compiled programs are kept, unless the user wants them elsewhere or not at all, and not all."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from dat_jax.runtime import programs
from dat_jax.runtime.programs import keep_programs

_SWITCHES = [
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
]


@pytest.fixture(autouse=True)
def untold() -> Iterator[None]:
    """JAX as in a process that was told nothing about a cache."""
    before = {name: jax.config.values[name] for name in _SWITCHES}
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for what any program of these tests compiles to."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(programs, "_QUICKLY_COMPILED", 0.0)
    return tmp_path / "dat_jax"


def compiled(number: float) -> float:
    """Compiles a program that has this number in it, and runs it."""
    jax.clear_caches()
    return float(jax.jit(lambda x: x + number)(jnp.ones(())))


def kept(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*-cache") if "lambda" in path.name}


def test_what_one_process_compiles_is_there_for_the_next(
    cache: Path, monkeypatch: pytest.MonkeyPatch
):
    keep_programs()
    assert compiled(2.0) == 3.0
    (name,) = kept(cache)
    compilation_cache.reset_cache()
    monkeypatch.setattr("jax._src.compiler.backend_compile_and_load", None)  # nothing may compile
    assert compiled(2.0) == 3.0
    assert kept(cache) == {name}


@pytest.mark.parametrize("relative", ["", "cache"])
def test_the_cache_is_in_the_user_s_home_by_default(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, relative: str
):
    """A variable that is empty or relative is to be passed over, as its specification says."""
    monkeypatch.setenv("XDG_CACHE_HOME", relative)
    monkeypatch.setenv("HOME", str(tmp_path))
    keep_programs()
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / ".cache" / "dat_jax")


def test_a_folder_that_the_user_named_stays(cache: Path, tmp_path: Path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    keep_programs()
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "mine")
    assert not cache.exists()


def test_a_user_who_wants_none_has_none(cache: Path):
    jax.config.update("jax_enable_compilation_cache", False)
    keep_programs()
    assert compiled(2.0) == 3.0
    assert not cache.exists()


@pytest.mark.parametrize("cause", ["no folder", "not writable"])
def test_where_nothing_can_be_written_programs_are_compiled(
    cache: Path, monkeypatch: pytest.MonkeyPatch, cause: str
):
    if cause == "no folder":
        cache.write_text("a file")
    else:
        monkeypatch.setattr("os.access", lambda *_: False)
    keep_programs()
    assert compiled(2.0) == 3.0
    assert jax.config.values["jax_compilation_cache_dir"] is None


def test_a_disk_that_is_full_later_is_not_remarked(cache: Path, recwarn: pytest.WarningsRecorder):
    keep_programs()
    cache.rmdir()
    cache.write_text("a file")
    assert compiled(2.0) == 3.0
    assert not recwarn.list


def test_of_many_programs_those_that_were_used_last_stay(
    cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(programs, "_MOST_BYTES", 12_000)
    keep_programs()
    names = []
    for number in range(2, 12):
        before = kept(cache)
        compiled(float(number))
        names += kept(cache) - before
    assert len(names) == 10
    assert names[-1] in kept(cache)
    assert names[0] not in kept(cache)
    assert sum(path.stat().st_size for path in cache.glob("*-cache")) <= 12_000


def test_a_program_that_was_being_written_when_its_process_was_killed_is_written_again(
    cache: Path,
):
    keep_programs()
    compiled(2.0)
    (name,) = kept(cache)
    for path in cache.glob("*-atime"):
        path.unlink()
    (cache / name).write_bytes(b"half a")
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", None)
    keep_programs()
    assert kept(cache) == set()
    assert compiled(2.0) == 3.0
    assert compiled(3.0) == 4.0
    assert len(kept(cache)) == 2
