"""Counting in machine code, and refusing cases that do not fit their kernel."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kernels.aot import CompileCase, compile_case, main_loop, num_matrix_products

MACHINE_CODE = """
	.section	.text.kernel
.text.kernel:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_2:
        /*0010*/                   IADD3 R2, R2, 0x1, RZ ;
.L_x_0:
        /*0020*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0030*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0040*/              @!P0 BRA `(.L_x_0) ;
        /*0050*/               @P1 BRA `(.L_x_2) ;
        /*0060*/               @P2 BRA `(.L_x_1) ;
        /*0070*/                   NOP ;
        /*0080*/                   STG.E [R2.64], R4 ;
.L_x_1:
        /*0090*/                   EXIT ;
.L_x_3:
        /*00a0*/                   BRA `(.L_x_3);
        /*00b0*/                   NOP;
"""


def test_the_main_loop_is_the_longest_innermost_one() -> None:
    """Outer loops, jumps ahead, the endless jump at the end and padding do not count."""
    instructions, loop = main_loop(MACHINE_CODE)
    assert len(instructions) == 10
    assert [instruction.split(".")[0].split()[0] for instruction in loop] == ["HMMA", "BAR", "@!P0"]
    assert main_loop("        /*0000*/    EXIT ;\n") == (["EXIT"], [])


def test_products_of_matrices_are_told_from_other_instructions() -> None:
    """Half-precision arithmetic has the letters in its name as well, and is none."""
    made = ["HGMMA.64x64x16.F32 R24, gdesc[UR4], R24 ;", "@P0 IMMA.16832.S8 R4, R8 ;"]
    others = ["HFMA2.MMA R4, -RZ, RZ, 0, 0 ;", "FFMA R1, R2, R3, R4 ;"]
    assert num_matrix_products([*made, *others]) == 2


def test_a_case_names_exactly_the_arguments_of_its_kernel() -> None:
    """A forgotten or unknown argument is told before anything is compiled."""
    kernel = SimpleNamespace(arg_names=["x_ptr", "size", "BLOCK"])
    short = CompileCase("op/short", kernel, {"x_ptr": "*bf16"}, {"BLOCK": 16}, units_per_turn=1)
    with pytest.raises(ValueError, match=r"op/short: expected the arguments .*'size'.*, got"):
        compile_case(short, 90)
    arguments = {"x_ptr": "*bf16", "size": "i32"}
    odd = CompileCase("op/odd", kernel, arguments, {"BLOCK": 16}, 1, unaligned=("other",))
    with pytest.raises(ValueError, match=r"op/odd: unaligned: \['other'\] are no arguments"):
        compile_case(odd, 90)
