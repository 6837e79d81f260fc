"""Importers of Caffe: protobuf files, and its VGG, ResNet, SSD and R-CNN models."""
