"""Sizes of batches, from the sizes of images and the transforms alone."""

from pathlib import Path

from boxwright.app.training.canvas import canvas_text, evaluation_canvas, training_canvas
from boxwright.data.config import DataConfig
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.data.transforms.configs import FlipConfig, ResizeConfig, WarpConfig
from boxwright.data.transforms.multi_scale import MultiScaleConfig
from boxwright.data.transforms.resizing import ScaleJitterConfig
from boxwright.structures import Classes
from tests.support.toys import toy_recipe


def index_of(*sizes: tuple[int, int]) -> DetectionIndex:
    records = [
        ImageRecord(path=Path(f"{i}.png"), image_id=i, height=h, width=w, boxes=[[0, 0, 5, 5]], labels=[0])
        for i, (h, w) in enumerate(sizes)
    ]
    return DetectionIndex.build(Classes.from_names(["a"]), records, root=Path())


INDEX = index_of((100, 200), (300, 150), (100, 100))
RESIZE = (ResizeConfig(short=(64, 96), long=160), FlipConfig())
WARP = (WarpConfig(size=(60, 70)),)


def test_images_of_one_size_are_padded() -> None:
    data = DataConfig(train=WARP, eval=RESIZE, pad_multiple=32)
    assert training_canvas(data, INDEX) == ((64, 96), (64, 96))


def test_sizes_follow_the_images() -> None:
    """100 x 200 becomes 64 x 128 or 80 x 160; 300 x 150 the same upright; 100 x 100 becomes 64 or 96 square."""
    data = DataConfig(train=RESIZE, eval=RESIZE, pad_multiple=32)
    assert training_canvas(data, INDEX) == ((64, 64), (160, 160))
    assert evaluation_canvas(data, index_of((100, 100))) == ((64, 64), (96, 96))


def test_scale_jitter_has_two_ends() -> None:
    data = DataConfig(train=(ScaleJitterConfig(size=(100, 100), scale=(0.5, 1.0)),), eval=WARP, pad_multiple=10)
    assert training_canvas(data, index_of((200, 100))) == ((50, 30), (100, 50))


def test_given_sizes_come_first() -> None:
    assert training_canvas(DataConfig(train=RESIZE, eval=WARP, fixed_size=(320, 256)), INDEX) == ((320, 256),) * 2
    shapes = DataConfig(train=RESIZE, eval=WARP, shapes=((320, 256), (64, 96)))
    assert training_canvas(shapes, INDEX) == ((64, 96), (320, 256))
    several = toy_recipe().data
    sizes = MultiScaleConfig(sizes=(48, 32), every=2)
    assert training_canvas(DataConfig(train=several.train, eval=WARP, multi_scale=sizes), INDEX) == (
        (32, 32),
        (48, 48),
    )


def test_canvas_in_words() -> None:
    assert canvas_text(((64, 96), (64, 96))) == "64 x 96"
    assert canvas_text(((64, 96), (128, 160))) == "64 x 96 to 128 x 160"
    assert canvas_text(None) == "drawn at random"
