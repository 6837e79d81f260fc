"""Annotation formats (COCO, VOC, YOLO): readers, writers, checks, conversion."""
