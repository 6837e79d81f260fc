"""Synthetic detection data set, drawn from a seed: no download, any number of images."""

from boxwright.data.scenes.compose import Scene, draw_scene
from boxwright.data.scenes.config import SceneConfig
from boxwright.data.scenes.shapes import SCENE_CLASSES
from boxwright.data.scenes.write import write_scenes

__all__ = ["SCENE_CLASSES", "Scene", "SceneConfig", "draw_scene", "write_scenes"]
