"""Which option to ask, decided before any model that answers sees the image.

A :class:`Router` reads a small image encoder, the question and the image's size. It needs no model
that answers, and so works for every run: local models, endpoints, functions and imported logs.

>>> from m3router import Router
>>> router = Router.load("run/")  # doctest: +SKIP
>>> router.decide("receipt.png", "What is the total?").option  # doctest: +SKIP
'448 px'
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from m3router.data.errors import DataError, MismatchError
from m3router.data.log.parts import part_rows
from m3router.data.registry import unknown_name
from m3router.m3core.encoders import ImageEncoder
from m3router.m3core.matryoshka.base import MultiScaleModel, VisualEncoding
from m3router.m3core.options import OptionModel
from m3router.router.cascade.rule import Cascade
from m3router.router.features.featurizer import live_featurizer
from m3router.router.features.groups import FEATURE_GROUPS, PEEK, SIZE
from m3router.router.features.size import size_features
from m3router.router.inference.decision import Decision
from m3router.router.inference.images import AnyImage, OpenedImages
from m3router.router.inference.loading import load_encoder_of, read_rule, reads_own_model
from m3router.router.monitoring.scenes import combined, is_outside, scene_likeness
from m3router.router.policies.expected_costs import ExpectedCosts
from m3router.router.policies.guarantee_text import told_by
from m3router.router.policies.policy import Policy
from m3router.router.runs.calibration_data import CalibrationData
from m3router.router.runs.run import AnyRun, Run, as_run
from m3router.router.text.numbers import number, plain
from m3router.router.training.scale_router import ScaleRouter

CHUNK = 32
"""Questions that are decided at a time; the encodings of their images are in memory together."""

Costs = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """What a router has seen of an image: enough to decide about any question on it.

    Small, so that many can be kept; see :meth:`Router.look`.

    Attributes:
        size: Width and height in pixels; None where there is no image.
        parts: Feature group to what the image gives of it, float32 (d,).
        tokens: What each option costs, where the model that answers encoded the image.
        familiarity: How unlike the images of the training it is, see `Decision.familiarity`.
        outside: See `Decision.outside`.
    """

    size: tuple[int, int] | None
    parts: Mapping[str, npt.NDArray[np.float32]]
    tokens: tuple[float, ...] = ()
    familiarity: float | None = None
    outside: bool = False


MaybeImage = AnyImage | Look | None


class Router:
    """A trained router with a policy and what makes its features.

    Args:
        router: The trained router; must not read a peek.
        encoder: Image encoder that made its features, or the model itself; None where no feature
            group needs one.
        costs: What options are expected to cost; not read where the encoder is the model that
            answers, whose encodings say it.
        policy: Calibrated for the router; None where every call brings a policy, a budget or an
            option.
        cascade: In place of the policy.
        run: Where other policies are, and what budgets are calibrated on; None without.

    Raises:
        MismatchError: If they do not belong together, or the router reads a peek.
    """

    def __init__(
        self,
        *,
        router: ScaleRouter,
        encoder: ImageEncoder | MultiScaleModel | None,
        costs: ExpectedCosts | None,
        policy: Policy | None = None,
        cascade: Cascade | None = None,
        run: Run | None = None,
    ) -> None:
        if PEEK in router.blocks:
            raise MismatchError(
                "The router reads the model's own first look at the image and the question (the "
                "feature group 'peek'), so the model must be asked: use `m3router ask`. To decide "
                "without the model, train without it, such as `m3router train RUN "
                "--feature-group image --feature-group question`."
            )
        self.router = router
        self.costs = costs
        self.policy = policy
        self.cascade = cascade
        self.run = run
        for rule in (policy, cascade):
            if rule is not None:
                rule.check_fits(options=router.options, router=router.fingerprint)
        self._model: MultiScaleModel | None = None
        if reads_own_model(router) and isinstance(encoder, MultiScaleModel):
            router.check_options(encoder.grid.names, of=f"the model {encoder.name}")
            self._model = encoder
        elif costs is None:
            raise MismatchError(
                "A router that decides without the model that answers needs expected costs: train "
                "the router again (m3router train)."
            )
        self._encoder = encoder
        self._featurizer = live_featurizer(
            encoder, router.blocks, router.metadata.get("features", {})
        )

    @classmethod
    def load(
        cls,
        run: AnyRun,
        *,
        policy: str = "default",
        encoder: str | None = None,
        device: str = "auto",
    ) -> Self:
        """Load a run's router and policy, and the image encoder that it reads.

        Args:
            run: A run folder after ``train``; and after ``calibrate``, unless every call brings a
                budget or an option.
            policy: Name of the policy; where a cascade goes with it, that decides.
            encoder: Folder or hub id of the image encoder; None for the name it had when the
                features were made. Where the model that answers made them, that model.
            device: Where the encoder is loaded.

        Raises:
            DataError: If a part is missing or damaged.
            ModelError: If the encoder cannot be loaded.
            MismatchError: If the parts do not belong together, or the router reads a peek.
        """
        place = as_run(run).opened()
        place.need_router()
        router = ScaleRouter.read(place.arm())
        rule: tuple[Policy | None, Cascade | None] = (None, None)
        if policy != "default" or place.policy_file(policy).is_file():
            rule = read_rule(place, policy)
        peeks = PEEK in router.blocks  # refused, but not after loading a large model
        loaded = None if peeks else load_encoder_of(router, encoder, device=device)
        costs = router.expected_costs
        if costs is None and not peeks and not reads_own_model(router):
            costs = _mean_costs(place, router)
        return cls(
            router=router,
            encoder=loaded,
            costs=costs,
            policy=rule[0],
            cascade=rule[1],
            run=place,
        )

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options, cheapest first by name."""
        return self.router.options

    @property
    def frames(self) -> int:
        """Frames of a video's collage, as many as the router was trained on."""
        return self._featurizer.frames

    @property
    def needs_image(self) -> bool:
        """Whether nothing can be decided without an image."""
        return bool(self._featurizer.by_image) or self._model is not None

    @property
    def needs_pixels(self) -> bool:
        """Whether it looks at an image's pixels; else the size is enough (:meth:`look_at_size`)."""
        return self._model is not None or not {SIZE}.issuperset(self._featurizer.by_image)

    def decide(
        self,
        image: MaybeImage,
        question: str,
        *,
        policy: str | Policy | Cascade | None = None,
        budget: float | None = None,
        option: str | None = None,
    ) -> Decision:
        """Decide for one question; see :meth:`decide_many`."""
        (decision,) = self.decide_many(
            [image], [question], policy=policy, budget=budget, option=option
        )
        return decision

    def decide_many(
        self,
        images: Sequence[MaybeImage],
        questions: Sequence[str],
        *,
        policy: str | Policy | Cascade | None = None,
        budget: float | None = None,
        option: str | None = None,
        costs: Costs | None = None,
    ) -> list[Decision]:
        """Decide for question i about image i.

        Args:
            images: RGB images, files of images and videos, or what was seen of them before
                (:meth:`look`); None for questions without one. What comes several times (the same
                object, or equal paths) is encoded once.
            questions: One for each image, none empty.
            policy: A policy or cascade, or the name of one of the run's, in place of the router's
                own.
            budget: Decide within so much mean cost, as calibrated on the run's calibration split.
            option: Decide for this option; estimates and costs are given all the same.
            costs: (N, K) as the model that answers counts them for these images, before it is
                asked (`counted_costs`). Read only where policies are fitted by such (`counts`);
                else the costs that the router expects decide, as they did when its policies were
                fitted.

        Raises:
            DataError: If a question is empty, a file cannot be read, an image is missing, or a
                budget cannot be met or calibrated.
            MismatchError: If lengths or shapes differ, there is no such option, or a policy
                belongs to another router.
        """
        if len(images) != len(questions):
            raise MismatchError(f"{len(images)} images but {len(questions)} questions were given")
        if costs is not None and np.shape(costs) != (len(images), len(self.options)):
            raise MismatchError(
                f"costs must have shape {(len(images), len(self.options))}, one for each image and "
                f"option; they have {np.shape(costs)}"
            )
        for row, question in enumerate(questions):
            if not question.strip():
                raise DataError(f"Question {row + 1} is empty; ask something")
        rule = self.rule(policy=policy, budget=budget, option=option)
        opened = self._opened(images)
        decisions: list[Decision] = []
        for start in range(0, len(opened), CHUNK):
            part = slice(start, start + CHUNK)
            decisions += self._decide(
                opened[part], questions[part], rule, None if costs is None else costs[part]
            )
        return decisions

    @property
    def counts(self) -> bool:
        """Whether policies are fitted by costs that the model that answers counts beforehand."""
        return self.costs is not None and self.costs.counted

    def _decide(
        self,
        images: Sequence[Image.Image | Look | None],
        questions: Sequence[str],
        rule: Policy | Cascade | str,
        counted: Costs | None,
    ) -> list[Decision]:
        began = time.perf_counter()
        looks = self._looks(images)
        seen = time.perf_counter()
        blocks = self._featurizer.joined([one.parts for one in looks], questions)
        made = time.perf_counter()
        costs, exact = self._costs(looks, counted)
        estimates = [self.router.predict_one(own) for own in blocks]
        chosen = [
            self.options.index(rule) if isinstance(rule, str) else rule.decide(p, own)
            for p, own in zip(estimates, costs, strict=True)
        ]
        stages = {
            "vision": seen - began,
            "features": made - seen,
            "route": time.perf_counter() - made,
        }
        spent = {stage: 1000 * seconds / len(images) for stage, seconds in stages.items()}
        return [
            Decision(
                option=self.options[place],
                estimates=dict(zip(self.options, p.tolist(), strict=True)),
                costs=dict(zip(self.options, own.tolist(), strict=True)),
                cost_unit=self.router.cost_unit,
                reason=_reason(rule, self.router.cost_unit),
                guarantee="" if isinstance(rule, str) or not as_certified else told_by(rule),
                fallback=rule.reason if isinstance(rule, Policy) and rule.fallback else "",
                escalates=isinstance(rule, Cascade) and bool(rule.rule.start),
                familiarity=look.familiarity,
                outside=look.outside,
                milliseconds=spent,
            )
            for place, p, own, as_certified, look in zip(
                chosen, estimates, costs, exact, looks, strict=True
            )
        ]

    def look(self, images: Sequence[Image.Image]) -> list[Look]:
        """Look at RGB images, to decide about questions on them later (:meth:`decide_many`)."""
        encodings: list[VisualEncoding | None] = [None] * len(images)
        if self._encoder is not None and self._encodes and images:
            encodings = list(self._encoder.encode(images))
        return [
            self._look(image, encoding) for image, encoding in zip(images, encodings, strict=True)
        ]

    def look_at_size(self, size: tuple[int, int]) -> Look:
        """What :meth:`look` sees of an image of this size, without `needs_pixels`.

        Raises:
            MismatchError: If the router needs more of an image.
        """
        if self.needs_pixels:
            raise MismatchError("The router looks at pixels: an image's size is not enough.")
        empty = np.zeros(0, dtype=np.float32)
        names = self._featurizer.feature_groups
        parts = {name: size_features(_OfSize(size)) if name == SIZE else empty for name in names}
        return Look(size=size, parts=parts)

    def _looks(self, images: Sequence[Image.Image | Look | None]) -> list[Look]:
        """What is seen of each; the same object is looked at once."""
        distinct = {id(one): one for one in images if isinstance(one, Image.Image)}
        known = dict(zip(distinct, self.look(list(distinct.values())), strict=True))
        without = self._look(None, None)
        return [one if isinstance(one, Look) else known.get(id(one), without) for one in images]

    def _look(self, image: Image.Image | None, encoding: VisualEncoding | None) -> Look:
        tokens: tuple[float, ...] = ()
        if self._model is not None and encoding is not None:
            tokens = tuple(encoding.tokens(scale) for scale in self._model.grid.scales)
        parts, known = self._featurizer.parts(image, encoding), self.router.familiarity
        own = None if image is None or known is None else known.of(parts)
        scene = None if image is None else scene_likeness(self._model, image)
        return Look(
            size=None if image is None else image.size,
            parts=parts,
            tokens=tokens,
            familiarity=combined(own, scene),
            outside=is_outside(scene),
        )

    def _costs(self, looks: Sequence[Look], counted: Costs | None) -> tuple[Costs, list[bool]]:
        """Costs (N, K), and for which images a policy was certified with just these."""
        if self._model is not None:
            return np.array([one.tokens for one in looks], dtype=np.float64), [True] * len(looks)
        assert self.costs is not None, "checked when the router was made"
        if counted is not None and self.costs.counted:
            return np.asarray(counted, dtype=np.float64), [True] * len(looks)
        sizes = [one.size for one in looks]
        found = [
            self.costs.of(None if size is None else np.array([size], dtype=np.intp), 1)[0]
            for size in sizes
        ]
        exact = [not self.costs.counted or self.costs.is_exact(size) for size in sizes]
        return np.stack(found), exact

    @property
    def _encodes(self) -> bool:
        """Whether it runs the encoder on images."""
        return self._model is not None or any(
            FEATURE_GROUPS[name].of_encoding is not None for name in self._featurizer.feature_groups
        )

    def _opened(self, images: Sequence[MaybeImage]) -> list[Image.Image | Look | None]:
        """The images themselves, RGB; equal paths give the same object."""
        open_one, found = OpenedImages(frames=self.frames), []
        for row, image in enumerate(images):
            if image is None and self.needs_image:
                raise DataError(
                    f"Question {row + 1} has no image, but the router reads images: give one, or "
                    "train on the questions alone (m3router train --feature-group question)"
                )
            found.append(image if image is None or isinstance(image, Look) else open_one(image))
        return found

    def rule(
        self,
        *,
        policy: str | Policy | Cascade | None = None,
        budget: float | None = None,
        option: str | None = None,
        again: bool = True,
    ) -> Policy | Cascade | str:
        """What decides where this is asked for: a rule, or the name of the option asked for.

        A policy by name is the cascade that goes with it, where there is one. May be given to
        :meth:`decide_many` again, as its policy or option.

        Args:
            policy: As in :meth:`decide_many`.
            budget: As there.
            option: As there.
            again: Whether another option can be asked after an answer; else a policy by name is
                the plain one, which was calibrated for the same target and one answer.

        Raises:
            DataError: If more than one is given, there is none, or a budget cannot be met.
            MismatchError: If there is no such option, or a policy belongs to another router.
        """
        if [policy, budget, option].count(None) < 2:
            raise DataError("Give at most one of a policy, a budget and an option.")
        if option is not None:
            if option not in self.options:
                raise MismatchError(unknown_name("option", option, self.options))
            return option
        if budget is not None:
            return self._calibration.policy(budget=budget)
        if isinstance(policy, Policy | Cascade):
            policy.check_fits(options=self.options, router=self.router.fingerprint)
            return policy
        named = (self.policy, self.cascade)
        if policy is not None:
            named = read_rule(self._place(f"the policy {policy!r}"), policy)
            for one in named:
                if one is not None:
                    one.check_fits(options=self.options, router=self.router.fingerprint)
        rule = (named[1] if again else None) or named[0]
        if rule is None:
            if self.run is not None:
                self.run.need_policy("default")
            raise DataError(
                "There is no policy to decide by. Run `m3router calibrate` on the run first, or "
                "give a budget or an option."
            )
        return rule

    @cached_property
    def _calibration(self) -> CalibrationData:
        return CalibrationData.read(self._place("a budget"))

    def _place(self, what: str) -> Run:
        if self.run is None:
            raise DataError(f"{what} needs a run folder: load the router with Router.load")
        return self.run


@dataclass(frozen=True)
class _OfSize:
    """Stands for an image of which only the size is known."""

    size: tuple[int, int]


def counted_costs(model: OptionModel, images: Sequence[Image.Image]) -> Costs | None:
    """What a model's options cost for images, as it counts them without being asked.

    Args:
        model: What will answer.
        images: RGB; the same object is counted once.

    Returns:
        (N, K), options in the model's order; None where it cannot count all of them.
    """
    known: dict[int, list[float | None]] = {}
    for image in images:
        if id(image) not in known:
            counts = [model.count(image, option.name).cost for option in model.options]
            if None in counts:
                return None
            known[id(image)] = counts
    rows = [known[id(image)] for image in images]
    return np.array(rows, dtype=np.float64).reshape(len(images), len(model.options))


def _mean_costs(run: Run, router: ScaleRouter) -> ExpectedCosts:
    """For routers of before there were expected costs: the means of the log's fit split.

    Their policies were fitted by the log's own costs, and so say nothing certain about these,
    unless every option always cost the same.
    """
    log = run.log()
    rows = part_rows(log, run.split(log), "fit", gaps=router.metadata["gaps"])
    return ExpectedCosts.learn(log.costs[rows], None, counted=True)


def _reason(rule: Policy | Cascade | str, unit: str) -> str:
    """Which rule chose, one sentence."""
    if isinstance(rule, str):
        return f"The option {rule} was asked for."
    asked = ", ".join(f"{name} {plain(value)}" for name, value in rule.knob.items())
    told = f" ({asked})" if asked else ""
    if isinstance(rule, Cascade):
        return f"A cascade asks it first, and may ask again where the answer looks wrong{told}."
    if rule.kind == "fixed":
        return f"The policy always takes the reference option, {rule.reference}{told}."
    worth = (
        "probability of a right answer"
        if rule.kind == "price"
        else f"probability of losing nothing against {rule.reference}"
    )
    return f"Highest {worth}, less {number(rule.price)} for each of its {unit}{told}."
