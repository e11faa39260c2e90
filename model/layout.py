"""Where a linear's weights lie in memory, which is half of what few rows cost on a CPU."""

from __future__ import annotations

from torch import nn


def lay_out_for_few_rows(module: nn.Module) -> None:
    """Let the weights of each linear that widens lie input by input rather than output by output.

    Names, shapes and values stay. The product of one row with float32 weights is then up to twice
    as fast on a CPU, of 16 rows as fast as before. Linears that narrow would be slower, and are
    left as they are.

    Args:
        module: whose linears; float32, on a CPU.
    """
    for linear in module.modules():
        if isinstance(linear, nn.Linear) and linear.out_features > linear.in_features:
            linear.weight.data = linear.weight.data.t().contiguous().t()
