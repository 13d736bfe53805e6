"""Adaptive scale prediction: label what every option answers, learn which suffices, route.

The names below are what most programs need. All else is in three packages, which import each other
in this direction only: :mod:`m3router.data` (what flows, without torch), :mod:`m3router.m3core`
(models that can be asked at several options), :mod:`m3router.router` (learns and decides).

>>> import m3router
>>> "AutoScalePipeline" in dir(m3router)
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3router.data.registry import exports
from m3router.router.version import __version__ as __version__

if TYPE_CHECKING:
    from m3router.data.example import Example as Example
    from m3router.data.log.oracle_log import OracleLog as OracleLog
    from m3router.data.sources.examples import load_examples as load_examples
    from m3router.m3core.checkpoints import load_model as load_model
    from m3router.m3core.functions import FunctionModel as FunctionModel
    from m3router.m3core.labelling import label as label
    from m3router.m3core.matryoshka.scales import ScaleGrid as ScaleGrid
    from m3router.m3core.opening import open_model as open_model
    from m3router.m3core.options import Option as Option
    from m3router.m3core.options import OptionModel as OptionModel
    from m3router.router.evaluation.evaluate import evaluate as evaluate
    from m3router.router.features.table import FeatureTable as FeatureTable
    from m3router.router.inference.decision import Decision as Decision
    from m3router.router.inference.opening import open_pipeline as open_pipeline
    from m3router.router.inference.option_pipeline import OptionPipeline as OptionPipeline
    from m3router.router.inference.pipeline import AutoScalePipeline as AutoScalePipeline
    from m3router.router.inference.router import Router as Router
    from m3router.router.policies.policy import Policy as Policy
    from m3router.router.runs.run import Run as Run
    from m3router.router.training.fit import train_router as train_router
    from m3router.router.training.scale_router import ScaleRouter as ScaleRouter

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "AutoScalePipeline": "m3router.router.inference.pipeline",
            "Decision": "m3router.router.inference.decision",
            "Example": "m3router.data.example",
            "FeatureTable": "m3router.router.features.table",
            "FunctionModel": "m3router.m3core.functions",
            "Option": "m3router.m3core.options",
            "OptionModel": "m3router.m3core.options",
            "OptionPipeline": "m3router.router.inference.option_pipeline",
            "OracleLog": "m3router.data.log.oracle_log",
            "Policy": "m3router.router.policies.policy",
            "Router": "m3router.router.inference.router",
            "Run": "m3router.router.runs.run",
            "ScaleGrid": "m3router.m3core.matryoshka.scales",
            "ScaleRouter": "m3router.router.training.scale_router",
            "evaluate": "m3router.router.evaluation.evaluate",
            "label": "m3router.m3core.labelling",
            "load_examples": "m3router.data.sources.examples",
            "load_model": "m3router.m3core.checkpoints",
            "open_model": "m3router.m3core.opening",
            "open_pipeline": "m3router.router.inference.opening",
            "train_router": "m3router.router.training.fit",
        },
        also=["__version__"],
    )
