"""Importers of Detectron (Caffe2) and Detectron2."""
