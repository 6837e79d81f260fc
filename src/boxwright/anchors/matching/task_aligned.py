"""Task-aligned assignment, by the quality of the current predictions (Feng et al.: TOOD, arXiv 2108.07755, §3.2).

Symbols: B images, G padded ground truth, A points (one prediction each), K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from boxwright.anchors.matching.matcher import Matches, nothing_to_match
from boxwright.anchors.matching.shape_matcher import Pairs
from boxwright.fields import Count, NotNegative, config
from boxwright.geometry.boxes import box_iou, points_in_boxes
from boxwright.geometry.indexing import take_rows
from boxwright.structures import Targets


@config
class TaskAlignedMatcher:
    """Match the predictions inside each object that have the highest alignment score^``alpha`` x IoU^``beta`` (eq. 4).

    The paper has ``alpha`` 1 and ``topk`` 13; later detectors use 0.5 and 10. A prediction that several objects choose
    goes to the one it overlaps most. All others are negative, except points in a crowd region, which are ignored.
    """

    topk: Count = 10
    """Maximum number of positives of an object."""
    alpha: NotNegative = 0.5
    """Exponent of the score."""
    beta: NotNegative = 6.0
    """Exponent of the IoU."""

    @torch.no_grad()
    def __call__(
        self,
        points: Tensor,
        scores: Tensor,
        boxes_pred: Tensor,
        boxes: Tensor,
        labels: Tensor,
        usable: Tensor,
        crowd: Tensor,
    ) -> tuple[Matches, Tensor]:
        """Match predictions at ``points`` ``[A, 2]`` to ``boxes`` ``[B, G, 4]`` with ``labels`` ``[B, G]``.

        ``scores`` ``[B, A, K]`` are probabilities, ``boxes_pred`` ``[B, A, 4]`` decoded boxes. ``usable`` and ``crowd``
        bool ``[B, G]``. Also returns the target score of each prediction ``[B, A]``: its alignment, scaled so that the
        best of an object has the highest IoU of that object (§3.2.2); 0 for predictions that are not positive.
        """
        if boxes.shape[1] == 0:
            return nothing_to_match(boxes_pred, boxes, None), torch.zeros_like(boxes_pred[..., 0])
        inside = points_in_boxes(points, boxes)  # [B, G, A]
        iou = torch.where(inside & usable.unsqueeze(-1), box_iou(boxes, boxes_pred), 0.0)
        of_class = labels.unsqueeze(-1).expand(-1, -1, points.shape[0])
        score = scores.transpose(1, 2).gather(1, of_class).float()  # [B, G, A]
        alignment = score.pow_(self.alpha).mul_(iou.pow(self.beta)) * (iou > 0)

        value, index = alignment.topk(min(self.topk, points.shape[0]), dim=2)
        chosen = torch.zeros_like(inside).scatter(2, index, value > 0)
        best, truth = torch.where(chosen, iou, -1.0).max(dim=1)  # [B, A]
        positive = best > 0
        number = torch.arange(boxes.shape[1], device=boxes.device).unsqueeze(-1)
        owned = positive.unsqueeze(1) & (truth.unsqueeze(1) == number)  # [B, G, A], one row of each column
        alignment = torch.where(owned, alignment, 0.0)
        peak = alignment.amax(dim=2, keepdim=True)
        scale = torch.where(owned, iou, 0.0).amax(dim=2, keepdim=True) / torch.where(peak > 0, peak, 1.0)
        ignored = (inside & crowd.unsqueeze(-1)).any(dim=1)
        return Matches(truth, positive, ~positive & ~ignored), (alignment * scale).sum(dim=1)


def pairs_of(matches: Matches, targets: Targets, topk: int, num_classes: int) -> Pairs:
    """List the positives of ``matches`` as pairs of predictor and object, R = ``topk`` x G rows (or A if fewer).

    No object has more than ``topk`` positives, so that these rows hold all of them.
    """
    rows = min(matches.positive.shape[1], topk * targets.boxes.shape[1])
    valid, predictor = matches.positive.float().topk(rows, dim=1)
    index = matches.truth.gather(1, predictor)
    label = take_rows(targets.labels.unsqueeze(-1), index)
    classes = (label == torch.arange(num_classes, device=label.device)).float()
    return Pairs(predictor, index, classes, valid > 0)
