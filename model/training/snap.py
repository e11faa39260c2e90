"""Put the tokenizer's hearing onto the grid it is stored on.

The encoder's linears ship in NF4 and the rest in fp16. Rounding them after the language model was
trained would change the codes it hears; rounding them before anything is trained on its codes costs
nothing.
"""

from __future__ import annotations

import torch
from torch import nn

from kernels.nf4 import dequantize_nf4, quantize_nf4
from model.codec.mel import MelCodec


@torch.no_grad()
def snap_encoder(codec: MelCodec) -> None:
    """Round the encoder and the codebooks of `codec` in place to what its weight file holds."""
    for part in (codec.encoder, codec.semantic, codec.acoustic):
        for tensor in [*part.parameters(), *part.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(tensor.half())
    # A worked example of why: a latent lies between two codes, 0.500 from the one and 0.501 from
    # the other. Rounded weights move it by 0.002, and the other code is chosen. A language model
    # that was trained on the first would hear something else from then on, in one frame of some
    # hundred.
    for module in codec.encoder.modules():
        if isinstance(module, nn.Linear):
            module.weight.copy_(
                dequantize_nf4(*quantize_nf4(module.weight), tuple(module.weight.shape))
            )
