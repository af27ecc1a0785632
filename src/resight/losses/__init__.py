"""Losses on embeddings. They need torch only and know nothing of the rest of the package.

All are called as `loss(embeddings, labels, ref_embeddings=None, ref_labels=None)`:

- embeddings (B, D) of any float type and any length; a loss that needs unit length sees to it.
- labels (B,) int, in any order; classes may have any number of images.
- Without references the batch is compared with itself, each image's pair with itself left out.
  With ref_embeddings (R, D) and ref_labels (R,) every pair counts, and gradients flow to both.
- The result is a scalar, float32 (float64 for float64). Where nothing is there to compare, it is
  0 with a gradient of 0. Half precision is lifted to float32, under autocast too.

Losses with vectors of the classes (CenterLoss, ProxyNCALoss, ArcFaceLoss, ClassifierLoss) are made
with the number of classes and of features; labels are then 0..classes-1, and references raise
ValueError, as they do for CrossBatchMemory, which has its own.
"""

from resight.losses.arcface import ArcFaceLoss
from resight.losses.blackbox_ap import BlackboxAPLoss
from resight.losses.center import CenterLoss
from resight.losses.classifier import ClassifierLoss
from resight.losses.contrastive import ContrastiveLoss
from resight.losses.ctl import CentroidTripletLoss
from resight.losses.fastap import FastAPLoss
from resight.losses.memory import CrossBatchMemory
from resight.losses.proxy_nca import ProxyNCALoss
from resight.losses.smooth_ap import SmoothAPLoss
from resight.losses.triplet import TripletLoss

__all__ = [
    "ArcFaceLoss",
    "BlackboxAPLoss",
    "CenterLoss",
    "CentroidTripletLoss",
    "ClassifierLoss",
    "ContrastiveLoss",
    "CrossBatchMemory",
    "FastAPLoss",
    "ProxyNCALoss",
    "SmoothAPLoss",
    "TripletLoss",
]
