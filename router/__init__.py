"""The router: features, estimators, policies, pipeline and analysis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.registry import exports

if TYPE_CHECKING:
    from router.analysis.evaluation import evaluate as evaluate
    from router.features.table import FeatureTable as FeatureTable
    from router.inference.pipeline import AutoScalePipeline as AutoScalePipeline
    from router.policy import Policy as Policy
    from router.router import ScaleRouter as ScaleRouter
    from router.run import Run as Run
    from router.stages.labelling import label_stage as label_stage
    from router.stages.learning import calibrate_stage as calibrate_stage
    from router.stages.learning import train_stage as train_stage
    from router.stages.reporting import evaluate_stage as evaluate_stage
    from router.stages.reporting import report_stage as report_stage
    from router.training import train_router as train_router
    from router.version import __version__ as __version__

__getattr__ = exports(
    __name__,
    {
        "__version__": "router.version",
        "AutoScalePipeline": "router.inference.pipeline",
        "FeatureTable": "router.features.table",
        "Policy": "router.policy",
        "Run": "router.run",
        "ScaleRouter": "router.router",
        "calibrate_stage": "router.stages.learning",
        "evaluate": "router.analysis.evaluation",
        "evaluate_stage": "router.stages.reporting",
        "label_stage": "router.stages.labelling",
        "report_stage": "router.stages.reporting",
        "train_router": "router.training",
        "train_stage": "router.stages.learning",
    },
)
