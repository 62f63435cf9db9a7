# SPDX-License-Identifier: Apache-2.0
"""The cache of compiled programs: user settings, failures and its limit of size."""

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
def without_cache() -> Iterator[None]:
    """Resets JAX to a process without cache settings."""
    before = {name: jax.config.values[name] for name in _SWITCHES}
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder; it keeps even programs that compile quickly."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(programs, "_QUICKLY_COMPILED", 0.0)
    return tmp_path / "dat_jax"


def compile_and_run(number: float) -> float:
    """Compiles and runs a program that contains this number."""
    jax.clear_caches()
    return float(jax.jit(lambda x: x + number)(jnp.ones(())))


def kept(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*-cache") if "lambda" in path.name}


def test_the_next_process_loads_a_compiled_program(cache: Path, monkeypatch: pytest.MonkeyPatch):
    keep_programs()
    assert compile_and_run(2.0) == 3.0
    (name,) = kept(cache)
    compilation_cache.reset_cache()
    monkeypatch.setattr("jax._src.compiler.backend_compile_and_load", None)  # compiling would fail
    assert compile_and_run(2.0) == 3.0
    assert kept(cache) == {name}


@pytest.mark.parametrize("relative", ["", "cache"])
def test_the_cache_is_in_the_home_folder_by_default(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, relative: str
):
    """The XDG specification says to ignore an empty or relative variable."""
    monkeypatch.setenv("XDG_CACHE_HOME", relative)
    monkeypatch.setenv("HOME", str(tmp_path))
    keep_programs()
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / ".cache" / "dat_jax")


def test_a_cache_folder_set_by_the_user_is_kept(cache: Path, tmp_path: Path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    keep_programs()
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "mine")
    assert not cache.exists()


def test_the_user_can_turn_the_cache_off(cache: Path):
    jax.config.update("jax_enable_compilation_cache", False)
    keep_programs()
    assert compile_and_run(2.0) == 3.0
    assert not cache.exists()


@pytest.mark.parametrize("cause", ["no folder", "not writable"])
def test_programs_run_without_a_writable_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch, cause: str
):
    if cause == "no folder":
        cache.write_text("a file")
    else:
        monkeypatch.setattr("os.access", lambda *_: False)
    keep_programs()
    assert compile_and_run(2.0) == 3.0
    assert jax.config.values["jax_compilation_cache_dir"] is None


def test_a_cache_that_fails_later_gives_no_warning(cache: Path, recwarn: pytest.WarningsRecorder):
    keep_programs()
    cache.rmdir()
    cache.write_text("a file")
    assert compile_and_run(2.0) == 3.0
    assert not recwarn.list


def test_the_cache_keeps_the_most_recently_used_programs(
    cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(programs, "_MOST_BYTES", 12_000)
    keep_programs()
    names = []
    for number in range(2, 12):
        before = kept(cache)
        compile_and_run(float(number))
        names += kept(cache) - before
    assert len(names) == 10
    assert names[-1] in kept(cache)
    assert names[0] not in kept(cache)
    assert sum(path.stat().st_size for path in cache.glob("*-cache")) <= 12_000


def test_a_partial_cache_entry_of_a_killed_process_is_replaced(
    cache: Path,
):
    keep_programs()
    compile_and_run(2.0)
    (name,) = kept(cache)
    for path in cache.glob("*-atime"):
        path.unlink()
    (cache / name).write_bytes(b"half a")
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", None)
    keep_programs()
    assert kept(cache) == set()
    assert compile_and_run(2.0) == 3.0
    assert compile_and_run(3.0) == 4.0
    assert len(kept(cache)) == 2


def test_tests_compile_what_another_process_has_half_written(tmp_path: Path):
    """Test processes share a cache that JAX does not lock."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    assert compile_and_run(2.0) == 3.0
    (name,) = kept(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100])
    compilation_cache.reset_cache()
    assert compile_and_run(2.0) == 3.0
