"""The group of commands ``boxwright data``."""

from __future__ import annotations

from cyclopts import App

from boxwright.cli.common import NEGATIVES, OPTIONS, examples
from boxwright.cli.data import anchors, augment, check, convert, filter, merge, scenes, show, split, tile

data_app = App(
    name="data",
    help="Check, show, convert, divide, merge, edit, analyse and generate data sets.",
    help_epilogue=examples(
        "boxwright data check my_data",
        "boxwright data show my_data --output samples.html",
        "boxwright data convert my_data my_coco --format coco",
        "boxwright data split my_data --output divided --val 0.2 --test 0.1",
    ),
    default_parameter=NEGATIVES,
    group_parameters=OPTIONS,
    sort_key=2,
)
data_app.command(check.check, sort_key=1, help_epilogue=check.EXAMPLES)
data_app.command(show.show, sort_key=2, help_epilogue=show.EXAMPLES)
data_app.command(convert.convert, sort_key=3, help_epilogue=convert.EXAMPLES)
data_app.command(split.split, sort_key=4, help_epilogue=split.EXAMPLES)
data_app.command(merge.merge, sort_key=5, help_epilogue=merge.EXAMPLES)
data_app.command(filter.filter, sort_key=6, help_epilogue=filter.EXAMPLES)
data_app.command(tile.tile, sort_key=7, help_epilogue=tile.EXAMPLES)
data_app.command(augment.augment, sort_key=8, help_epilogue=augment.EXAMPLES)
data_app.command(anchors.anchors, sort_key=9, help_epilogue=anchors.EXAMPLES)
data_app.command(scenes.scenes, sort_key=10, help_epilogue=scenes.EXAMPLES)
