# SPDX-License-Identifier: Apache-2.0
"""Programs compiled for absent devices: parsing the compilers' output, and checks on it.

Tests that compile for a device are skipped if its compiler is not installed.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compiled import __main__ as compiled
from benchmarks.compiled import hlo, pieces, thunks
from benchmarks.compiled.targets import find_target
from dat_jax.errors import UserError
from tests.scripts.calls import refuse


def _expanded(text: str) -> str:
    """Expands the abbreviations of HLO below to XLA's syntax."""
    text = re.sub(r"branches\((.*?)\)", r"branch_computations={\1}", text)
    text = re.sub(r"traced\((.*?)\)", r'metadata={op_name="jit(f)/\1"}', text)
    return re.sub(r"cycles\((\d+)\)", r'backend_config={"estimated_cycles":"\1"}', text)


HLO = _expanded("""\
HloModule jit_search

%zeros (a: f32[8]) -> f32[8] {
  ROOT %b = f32[8]{0:T(128)} broadcast(%c), traced(step/block_2/cond/zeros), cycles(10)
}

%block (a: f32[8]) -> f32[8] {
  %f = f32[8]{0} fusion(%a), kind=kOutput, traced(step/block_2/dot), cycles(1000)
  ROOT %g = f32[8]{0} fusion(%f), kind=kCustom, calls=%h, traced(step/block_2/gather)
}

%rows (t: (s32[])) -> (s32[]) {
  ROOT %n = s32[] add(%o, %p), cycles(3)
}

%any (a: f32[8]) -> f32[8] {
  ROOT %k = f32[8]{0} copy(%a), cycles(200)
}

%body (t: (s32[], f32[512,1024])) -> (s32[], f32[512,1024]) {
  %x = f32[8]{0} add(%l, %m), traced(step/block_1/add), cycles(7)
  %y = (f32[8]{0:T(8)}, s32[]) conditional(%i), branches(%zeros, %block), traced(step/block_2/if)
  %z = f32[8]{0} conditional(%i, %x, %x), true_computation=%any, false_computation=%zeros2
  %w = (s32[]) while(%v), condition=%c, body=%rows, backend_config={"known_trip_count":{"n":"5"}}
  %q = f32[512,1024]{1,0} copy(%r)
  %s = f32[4,2]{1,0} all-reduce-start(%r), to_apply=%sum
}

%zeros2 (a: f32[8]) -> f32[8] {
  ROOT %b = f32[8]{0} broadcast(%c), cycles(1)
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %u = (s32[], f32[512,1024]{1,0:T(8,128)}) while(%t), condition=%c, body=%body
}
""")

THUNKS = """\
000: kCommandBuffer [source | next]
    001: kCopy [source | sink] kCopy
002: kWhile         [prev=000 (1) | next=000 (1)]
condition:
    003: kCustomKernel [source | sink] a grid
  body:
    000: kCommandBuffer [source | sink]
        004: kCustomKernel [source | sink] b grid
    158: kWhile [prev | next]
condition:
        005: kCustomKernel [source | sink] c grid
      body:
        000: kCommandBuffer [source | sink]
            006: kCustomKernel [source | sink] d grid
            007: kConditional  [prev | next]
              branch_0:
                008: kCustomKernel [source | sink] e grid
                009: kCopy [source | sink] kCopy
              branch_1:
                010: kCustomKernel [source | sink] f grid
              branch_2:
                011: kCustomKernel [source | sink] g grid
                012: kCustomKernel [source | sink] g grid
                013: kCustomKernel [source | sink] g grid
            014: kConditional  [prev | next]
              false_branch:
                015: kCustomKernel [source | sink] h grid
                016: kCustomKernel [source | sink] h grid
              true_branch:
                017: kCopy [source | sink] kCopy
    000: kCommandBuffer [prev | sink]
        018: kCopy [source | sink] kCopy
019: kCopy [prev | sink] kCopy
"""


def test_cycles_count_all_trips_and_the_costliest_branch_or_the_cheapest_optional_one():
    program = hlo.parse(HLO)
    loop = program.loop("step")
    assert program.entry == "main"
    assert loop.body == "body"
    known = frozenset({"block_1", "block_2"})
    always = 7 + 200 + 5 * 3  # the costlier branch of the unnamed conditional
    assert program.cycles("body", known) == always + 10
    assert program.cycles("body") == program.cycles("main") == always + 1000
    assert program.cycles_of_branch("body", "block_1", 0) == 7
    assert [program.cycles_of_branch("body", "block_2", n) for n in (0, 1)] == [10, 1000]


def test_instructions_are_parsed():
    program = hlo.parse(HLO)
    inside = list(program.all_below("body"))
    assert [one.opcode for one in inside if one.is_custom] == ["fusion"]
    assert sum(one.body is not None for one in inside) == 1
    (exchange,) = [one for one in inside if one.is_collective]
    assert exchange.opcode == "all-reduce-start"
    assert exchange.bytes == 32
    assert program.loop("step").arrays == [("s32", ()), ("f32", (512, 1024))]


def test_launches_count_only_the_branches_taken():
    body = thunks.last_loop(thunks.parse(THUNKS))
    assert [thunk.kind for thunk in body] == ["kCommandBuffer"]
    counts = [thunks.count(body, lambda _, runs=runs: runs) for runs in (False, True)]
    assert counts[0] == {"nodes": 3 + 2 + 1, "copies": 2}
    assert counts[1] == {"nodes": 3 + 3 + 2, "copies": 0}


@pytest.mark.parametrize("target", ["tpu:v5p", "gpu", ""])
def test_an_unknown_target_is_refused(tmp_path: Path, target: str):
    output = f"--output={tmp_path / 'lines'}"
    refuse("must be one of tpu:v4, tpu:v5e", compiled.main, output, f"--target={target}")


def test_the_error_for_a_missing_compiler_names_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"--target=tpu:v6e needs jax\[tpu\]: install it with pip"):
        find_target("tpu:v6e")
    with pytest.raises(UserError, match="needs jax-cuda13-plugin and jax-cuda13-pjrt"):
        find_target("gpu:h100")


PROGRAMS = ["search", "confidence", "confidence, shortlist 16"]


@pytest.fixture(scope="module", params=["tpu:v5e", "gpu:h100"])
def lines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The benchmark's lines for a small model."""
    try:
        find_target(request.param)
    except UserError as error:
        pytest.skip(str(error))
    sizes = {"dim": 128, "ff_dim": 128, "heads": 2, "num_layers": 2, "encoder_layers": 1}
    output = tmp_path_factory.mktemp("compiled") / "lines.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "LARGE", sizes | {"vocabulary_size": 1_000})
        arguments = [f"--target={request.param}", "--programs=search,confidence"]
        assert compiled.main(["", f"--output={output}", *arguments]) == 0
    return [json.loads(line) for line in output.read_text().splitlines()]


def with_labels(lines: list[Any], piece: str, **labels: Any) -> list[Any]:
    labels |= {"piece": piece}
    return [line for line in lines if labels.items() <= line.items()]


@pytest.mark.slow
def test_a_search_copies_no_cache_and_has_no_serial_loops(lines: list[Any]):
    programs = with_labels(lines, "program")
    assert [line["program"] for line in programs] == PROGRAMS
    assert all(line["serial_loops"] == line["store_copies"] == 0 for line in programs)
    assert all(line["temporary_bytes"] > 0 for line in programs)


@pytest.mark.slow
def test_deeper_exits_and_more_rows_cost_more_and_a_step_is_one_graph(lines: list[Any]):
    unit = "kilocycles" if lines[0]["target"].startswith("tpu") else "nodes"
    tokens = [line for line in with_labels(lines, "token") if line["program"] == PROGRAMS[0]]
    one, two = (with_labels(tokens, "token", average_exit=depth)[0] for depth in (1, 2))
    assert 0 < one[unit] < two[unit]
    blocks = [line[unit] for line in with_labels(lines, "block")]
    assert all(block <= blocks[-1] for block in blocks)
    assert all(line.get("command_buffers", 1) == 1 for line in lines)


@pytest.mark.slow
def test_a_depth_is_counted_with_its_classifier(lines: list[Any]):
    for name in PROGRAMS[1:]:
        own = [line for line in lines if line["program"] == name]
        costs = [line.get("kilocycles", line.get("nodes")) for line in own[:-1]]
        assert costs and min(costs) > 0
