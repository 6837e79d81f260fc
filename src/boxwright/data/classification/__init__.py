"""Image folders for classification, which pretrain backbones."""
