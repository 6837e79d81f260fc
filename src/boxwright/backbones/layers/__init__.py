"""Layers that backbones share: blocks, norms, pooling, recomputation, Winograd convolution."""
