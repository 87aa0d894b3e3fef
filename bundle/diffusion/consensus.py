"""One answer out of many predictions: those of the steps of a chain and of several chains (members)."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

ConsensusName = Literal["mean", "majority", "staple", "last"]


def consensus(predictions: Tensor, steps: int, method: ConsensusName = "mean") -> Tensor:
    """Fuse class probabilities over steps and members.

    Args:
        predictions: (members * steps, B, K, H, W) probabilities over K classes, the steps of a member
            one after the other.
        steps: predictions a member, for 'last'.
        method: 'mean' of the probabilities (MedCondDiff); 'majority', the share of votes a class gets;
            'staple', a class's posterior under the STAPLE model of Warfield et al. 2004, each prediction
            a rater; 'last', the mean over members of their last step.

    Returns:
        (B, K, H, W) probabilities that sum to 1 over K.
    """
    if method == "mean":
        return predictions.mean(dim=0)
    if method == "majority":
        return _votes(predictions).mean(dim=0)
    if method == "last":
        return predictions[steps - 1 :: steps].mean(dim=0)
    if method == "staple":
        return _staple(predictions)
    raise ValueError(f"consensus must be one of {', '.join(get_args(ConsensusName))}, not {method!r}")


def _votes(predictions: Tensor) -> Tensor:
    classes = predictions.shape[2]
    return torch.nn.functional.one_hot(predictions.argmax(dim=2), classes).movedim(-1, 2).to(predictions)


def _staple(predictions: Tensor) -> Tensor:
    import itk  # takes a second to import, and few runs ask for STAPLE

    votes = _votes(predictions).cpu().numpy().astype(np.uint8)
    raters, batch, classes = votes.shape[:3]
    posterior = votes.mean(axis=0, dtype=np.float32)
    if raters == 1:
        return torch.from_numpy(posterior).to(predictions)
    for image in range(batch):
        for label in range(1, classes):
            rated = votes[:, image, label]
            # where all agree, the filter has nothing to estimate and the vote is the posterior
            if not rated.any() or (rated == rated[0]).all():
                continue
            estimator = itk.STAPLEImageFilter[itk.Image[itk.D, 2], itk.Image[itk.D, 2]].New()
            estimator.SetForegroundValue(1)
            estimator.SetMaximumIterations(50)
            for rater in range(raters):
                estimator.SetInput(rater, itk.image_from_array(rated[rater].astype(np.float64)))
            estimator.Update()
            posterior[image, label] = itk.array_from_image(estimator.GetOutput())
        # each class was judged against all the others on its own
        foreground = posterior[image, 1:].sum(axis=0)
        posterior[image, 0] = np.clip(1.0 - foreground, 0.0, 1.0)
        posterior[image] /= posterior[image].sum(axis=0)
    return torch.from_numpy(posterior).to(predictions)
