"""Compile Triton kernels for GPUs that are not here, and count what came out.

Triton brings the whole tool chain (ptxas, cuobjdump, nvdisasm), so registers, spills, shared memory
and the machine code itself can be known on any machine. Instructions per weight, or per whatever a
kernel works through, are the best forecast of its speed that needs no GPU: a floor, for latency and
launches come on top.

Triton must not be in interpreter mode in the same process: `benchmarks/compile_gate.py` starts one.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton  # type: ignore[import-untyped]  # shipped without types
from triton.backends.compiler import GPUTarget  # type: ignore[import-untyped]  # the same
from triton.compiler import ASTSource  # type: ignore[import-untyped]  # the same

ARCHITECTURES = (80, 89, 90)  # A100; RTX 4090, L4, L40S; H100, H200

# That one program can have, opted in. Source: CUDA C++ Programming Guide, "Technical Specifications
# per Compute Capability".
MAX_SHARED_BYTES = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024}

# A worked example of what is counted. Of this machine code the main loop is the two instructions
# from .L_x_1 to the jump back to it; the jump of .L_x_2 to itself is the padding at every kernel's
# end:
#
#             /*0000*/  MOV R1, c[0x0][0x28] ;
#     .L_x_1:
#             /*0010*/  HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
#             /*0020*/  @P0 BRA `(.L_x_1) ;
#             /*0030*/  EXIT ;
#     .L_x_2:
#             /*0040*/  BRA `(.L_x_2) ;
#
# If one turn of the loop does 2,048 weights with 4 warps, that is 2 * 4 * 32 / 2,048 = 0.125 thread
# instructions for each weight.

_WARP = 32
_LABEL = re.compile(r"^(\.L\w+):")
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]+\*/\s+(.*?);")
_JUMP = re.compile(r"\bBRA\b.*`\((\.L\w+)\)")
_TENSOR_CORES = re.compile(r"\b[BDHIQ]G?MMA\b")  # HFMA2.MMA is no product of matrices
_RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)")


@dataclass(frozen=True, slots=True)
class CompileCase:
    """One kernel with one set of constants: what a launch would compile.

    Attributes:
        name: unique, "operation/variant".
        kernel: a function decorated with `triton.jit`.
        arguments: Triton type of each argument that is not constant, by name: "*bf16", "i32".
        constants: value of each `tl.constexpr` argument, by name.
        unaligned: arguments that are no multiple of 16. All other pointers and integers are, as a
            launch would find for sizes that the kernel is meant for. Name counts that vary here.
        units_per_turn: what one turn of the main loop does, over the whole program: weights, cache
            elements. A kernel without a loop does it once.
        num_warps: of a program.
        num_stages: of software pipelining.
        architectures: that it is launched on, compute capabilities without their point.
    """

    name: str
    kernel: Any  # Any: triton.jit is untyped
    arguments: Mapping[str, str]
    constants: Mapping[str, object]
    units_per_turn: int
    unaligned: tuple[str, ...] = ()
    num_warps: int = 4
    num_stages: int = 3
    architectures: tuple[int, ...] = ARCHITECTURES


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the machine code of a case needs and does.

    Attributes:
        registers: for each thread.
        spill_bytes: of stack and local memory for each thread; a kernel without spills has 0.
        shared_bytes: of shared memory for each program.
        instructions: in the whole kernel.
        loop_instructions: in one turn of the main loop, the longest one without a loop inside;
            0 without a loop.
        per_unit: thread instructions of the main loop (without one, of the kernel) for each unit.
        mma: tensor core instructions in the main loop.
        barriers: in the main loop.
    """

    registers: int
    spill_bytes: int
    shared_bytes: int
    instructions: int
    loop_instructions: int
    per_unit: float
    mma: int
    barriers: int


def compile_case(case: CompileCase, architecture: int) -> Compiled:
    """Compile a case for one architecture and count.

    Args:
        case: what to compile.
        architecture: compute capability without its point, 90 for sm_90.

    Raises:
        ValueError: if arguments and constants together are not exactly those of the kernel.
        triton.compiler.CompilationError: if the kernel does not compile.
    """
    compiled = triton.compile(
        _source(case),
        target=GPUTarget("cuda", architecture, _WARP),
        options={"num_warps": case.num_warps, "num_stages": case.num_stages},
    )
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        resources = _run(triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(cubin))
        machine_code = _run(triton.knobs.nvidia.nvdisasm.path, "-c", str(cubin))
    found = _RESOURCES.search(resources)
    assert found is not None, f"cuobjdump did not tell the resources: {resources}"
    registers, stack, local = map(int, found.groups())
    body, loop = main_loop(machine_code)
    counted = loop or body
    return Compiled(
        registers=registers,
        spill_bytes=stack + local,
        shared_bytes=int(compiled.metadata.shared),
        instructions=len(body),
        loop_instructions=len(loop),
        per_unit=round(len(counted) * case.num_warps * _WARP / case.units_per_turn, 3),
        mma=num_matrix_products(counted),
        barriers=sum("BAR.SYNC" in instruction for instruction in counted),
    )


def num_matrix_products(instructions: Sequence[str]) -> int:
    """Count the instructions for tensor cores."""
    return sum(_TENSOR_CORES.search(instruction) is not None for instruction in instructions)


def main_loop(machine_code: str) -> tuple[list[str], list[str]]:
    """Find the main loop in a kernel's machine code.

    Args:
        machine_code: as `nvdisasm -c` prints it.

    Returns:
        All instructions, and those of the longest loop that has no loop inside; without padding.
    """
    instructions: list[str] = []
    labels: dict[str, int] = {}
    for line in machine_code.splitlines():
        if label := _LABEL.match(line.strip()):
            labels[label[1]] = len(instructions)
        elif (found := _INSTRUCTION.match(line)) and not found[1].startswith("NOP"):
            instructions.append(found[1].strip())
    loops: list[tuple[int, int]] = []
    for end, instruction in enumerate(instructions):
        jump = _JUMP.search(instruction)
        # The endless jump to itself that ends every kernel is no loop.
        if jump and labels.get(jump[1], end) < end:
            loops.append((labels[jump[1]], end))
    innermost = [
        (begin, end)
        for begin, end in loops
        if not any(begin <= b and e <= end and (b, e) != (begin, end) for b, e in loops)
    ]
    begin, end = max(innermost, key=lambda span: span[1] - span[0], default=(0, -1))
    return instructions, instructions[begin : end + 1]


def _source(case: CompileCase) -> ASTSource:
    names = case.kernel.arg_names
    given = {**case.arguments, **dict.fromkeys(case.constants, "constexpr")}
    if set(names) != given.keys() or case.arguments.keys() & case.constants.keys():
        raise ValueError(f"{case.name}: expected the arguments {names}, got {sorted(given)}")
    unknown = set(case.unaligned) - case.arguments.keys()
    if unknown:
        raise ValueError(f"{case.name}: unaligned: {sorted(unknown)} are no arguments")
    attributes = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(names)
        if name not in case.unaligned and given[name].startswith(("*", "i"))
    }
    signature = {name: given[name] for name in names}
    return ASTSource(case.kernel, signature, dict(case.constants), attributes)


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - Triton's own tools
