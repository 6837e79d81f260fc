"""Boxes for the tests of overlaps, matching and NMS."""

import torch


def random_boxes(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand((count, 2), generator=generator) * 80
    return torch.cat([corner, corner + torch.rand((count, 2), generator=generator) * 40], dim=1)


SHEET = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 4, 10, 14], [20, 20, 30, 30]])


def scored(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return random_boxes(count, seed), torch.rand(count, generator=torch.Generator().manual_seed(seed + 100))
