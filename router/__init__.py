"""The router: features, estimators, policies, pipeline and analysis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.registry import exports

if TYPE_CHECKING:
    from router.analysis.evaluation import evaluate as evaluate
    from router.features.table import FeatureTable as FeatureTable
    from router.pipeline import AutoScalePipeline as AutoScalePipeline
    from router.policy import Policy as Policy
    from router.router import ScaleRouter as ScaleRouter
    from router.training import train_router as train_router

__getattr__ = exports(
    __name__,
    {
        "AutoScalePipeline": "router.pipeline",
        "FeatureTable": "router.features.table",
        "Policy": "router.policy",
        "ScaleRouter": "router.router",
        "evaluate": "router.analysis.evaluation",
        "train_router": "router.training",
    },
)
