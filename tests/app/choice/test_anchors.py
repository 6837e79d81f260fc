"""Anchors stay if they fit the boxes, and follow the boxes if they do not."""

import numpy as np
import pytest

from boxwright.app.choice.anchors import anchor_shapes, fit_anchors, recall_of
from boxwright.recipes import get_recipe
from tests.support.choice_cases import boxes_index


def test_anchors_that_fit_stay():
    recipe = get_recipe("faster-rcnn-lite0-fpn")
    fit = fit_anchors(recipe, boxes_index())
    assert fit.recipe == recipe
    assert fit.recall == 1.0
    assert not fit.changed


@pytest.mark.parametrize("name", ["faster-rcnn-lite0-fpn", "retinanet-lite0", "yolov3-lite0"])
def test_anchors_follow_small_boxes(name):
    recipe = get_recipe(name)
    index = boxes_index(side=12.0)  # 5 px in an input of 256
    if name == "yolov3-lite0":  # k-means wants as many shapes as anchors
        index = index.subset(np.arange(len(index)))
        index.xywh[:, 2:] += np.arange(len(index.xywh))[:, None] % 23 / 4
    fit = fit_anchors(recipe, index)
    assert fit.changed
    assert fit.recall is not None
    assert fit.recall > 0.9
    assert len(anchor_shapes(fit.recipe.detector, index)) == len(anchor_shapes(recipe.detector, index))


def test_boxes_below_every_anchor_are_counted():
    fit = fit_anchors(get_recipe("faster-rcnn-lite0-fpn"), boxes_index(side=3.0))
    assert fit.too_small == 1.0
    assert fit.smallest is not None
    assert fit.smallest > 3.0


def test_recall_counts_the_boxes_with_an_anchor_of_their_shape():
    shapes = np.array([[10.0, 10.0]])
    assert recall_of(np.array([[10.0, 10.0], [10.0, 6.0], [40.0, 40.0], [2.0, 2.0]]), shapes) == 0.5
