"""What FID needs of a set of images, kept in a file: so that the reference is looked at once."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_FORMAT = "bigain statistics 1"


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sums over the features (N, D) of a set, in float64."""

    network: str  # that made the features, and of which images; others do not compare
    count: int
    total: Tensor  # (D,)
    products: Tensor  # (D, D)

    @classmethod
    def of(cls, network: str, batches: Iterable[np.ndarray]) -> Statistics:
        """Of features (B, D), batch by batch; ValueError for fewer than two images, or values that are not finite."""
        count, total, products = 0, torch.zeros(()), torch.zeros(())
        for batch in batches:
            rows = torch.from_numpy(np.array(batch, dtype=np.float64))
            count, total, products = count + len(rows), total + rows.sum(0), products + rows.T @ rows
        if count < 2:
            raise ValueError(f"images must be at least 2, not {count}")
        if not total.isfinite().all():
            raise ValueError(f"features of {network} must be finite, which they are not")
        return cls(network, count, total, products)

    def write(self, path: Path) -> None:
        """Writes a file that ``read`` reads back: safetensors."""
        about = {"format": _FORMAT, "network": self.network, "count": str(self.count)}
        save_file({"total": self.total, "products": self.products}, path, {"bigain": json.dumps(about)})

    @classmethod
    def read(cls, path: Path) -> Statistics:
        """Reads what ``write`` wrote; a ValueError that names the file for something else."""
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {})["bigain"])
                if about["format"] != _FORMAT:
                    raise ValueError(f"of the format {about['format']!r}")
                return cls(about["network"], int(about["count"]), file.get_tensor("total"), file.get_tensor("products"))
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} must hold statistics of bigain fid, not this: {error}") from error

    def fid(self, other: Statistics) -> float:
        """Frechet Inception distance to another set, by torchmetrics; ValueError for features of another network."""
        if self.network != other.network or self.total.shape != other.total.shape:
            raise ValueError(f"both sets must have features of {self.network!r}, not one of {other.network!r}")
        from torchmetrics.image.fid import _compute_fid

        moments = [moment for own in (self, other) for moment in own.moments()]
        return max(0.0, float(_compute_fid(*moments)))  # not below 0 but by a rounding error

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (D,) and unbiased covariance (D, D)."""
        mean = self.total / self.count
        return mean, (self.products - self.count * torch.outer(mean, mean)) / (self.count - 1)
