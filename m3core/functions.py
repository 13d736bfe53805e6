"""Any Python function as a model: ``(images, questions, option) -> answers``.

>>> from m3router.m3core.functions import FunctionModel
>>> def reader(images, questions, option):
...     sharp = option == "large"
...     return ["yes" if sharp else "no" for _ in images]
>>> model = FunctionModel(reader, options=["small", "large"], costs={"small": 1, "large": 9})
>>> [option.name for option in model.options]
['small', 'large']
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from m3router.data.errors import MismatchError, ModelError
from m3router.data.registry import unknown_name
from m3router.m3core.options import (
    EMPTY_QUESTION,
    Answer,
    Failure,
    Option,
    OptionModel,
    Request,
    Usage,
    check_option,
    options_named,
)

Function = Callable[[list[Image.Image], list[str], str], Sequence[Any]]
"""Takes N images, N questions and an option's name; returns N answers, each a text, an
:class:`Answer` or a :class:`Failure`."""
Costs = Mapping[str, float] | Callable[[Image.Image, str], float]
"""What an answer costs: a number for each option, or a function of an image and an option."""

SECONDS = "seconds"
_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class FunctionModel:
    """A function that answers, with its options and what they cost.

    Args:
        function: ``(images, questions, option) -> answers``; images are RGB, and the same object
            where several questions are about one image. What it raises becomes an error record of
            the question it was asked alone.
        options: Names, coarsest first.
        costs: What an answer costs, known before it is asked; None takes the seconds that the call
            took, which are known only afterwards.
        cost_unit: What ``costs`` counts, such as ``"megapixels"``.
        name: Of the model, for logs; the function's own where it is not given.
        revision: Changes whenever answers would; None takes the hash of the function's file.
        max_new_tokens: Recorded in logs; the function ends its answers as it likes.

    Raises:
        MismatchError: If options repeat, or the costs do not name them all.
    """

    def __init__(
        self,
        function: Function,
        *,
        options: Sequence[str],
        costs: Costs | None = None,
        cost_unit: str | None = None,
        name: str | None = None,
        revision: str | None = None,
        max_new_tokens: int = 16,
    ) -> None:
        self.function = function
        self._options = options_named(options)
        if isinstance(costs, Mapping) and set(costs) != set(options):
            raise MismatchError(
                f"the costs are of {', '.join(map(repr, costs))}, the options are "
                f"{', '.join(map(repr, options))}: each option needs a cost"
            )
        self.costs = costs
        self._cost_unit = cost_unit or (SECONDS if costs is None else "cost")
        self.name = str(name or getattr(function, "__qualname__", type(function).__name__))
        self.max_new_tokens = max_new_tokens
        asked = json.dumps([revision or _source_hash(function), list(options), self._cost_unit])
        self.revision = hashlib.sha256(asked.encode()).hexdigest()
        self.reference = ""

    @property
    def options(self) -> tuple[Option, ...]:
        """Coarsest first."""
        return self._options

    @property
    def cost_unit(self) -> str:
        """What ``costs`` counts, or seconds."""
        return self._cost_unit

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The function, and what runs it."""
        return {"backend": "function", "python": sys.version.split()[0], "function": self.name}

    @property
    def spec(self) -> Mapping[str, Any]:
        """Where the function is found again, if it was loaded by such a reference."""
        return {
            "kind": "function",
            "name": self.reference,
            "options": [option.name for option in self.options],
        }

    def count(self, image: Image.Image, option: str) -> Usage:
        """The cost, where it is known before asking, and the image's pixels."""
        check_option(self, option)
        return Usage(cost=self._cost(image, option), pixels=image.width * image.height)

    def answer(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """Call the function once for each option among the requests."""
        for request in requests:
            check_option(self, request.option)
        told: list[Answer | Failure | None] = [None] * len(requests)
        for option in self.options:
            places = [
                n
                for n, one in enumerate(requests)
                if one.option == option.name and one.question.strip()
            ]
            if places:
                asked = [requests[place] for place in places]
                for place, one in zip(places, self._ask(asked, option.name), strict=True):
                    told[place] = one
        return [Failure(message=EMPTY_QUESTION) if one is None else one for one in told]

    def _ask(self, requests: Sequence[Request], option: str) -> list[Answer | Failure]:
        began = time.perf_counter()
        images, questions = [one.image for one in requests], [one.question for one in requests]
        try:
            said = list(self.function(images, questions, option))
        except (KeyboardInterrupt, SystemExit, ModelError):
            raise
        # A user's function may raise anything. It must not stop the others' labelling.
        except Exception as error:
            if len(requests) > 1:
                return [self._ask([one], option)[0] for one in requests]
            return [Failure(message=f"{self.name} raised {type(error).__name__}: {error}")]
        if len(said) != len(requests):
            raise ModelError(
                f"{self.name} returned {len(said)} answers to {len(requests)} questions at option "
                f"{option!r}; it must return one for each, in their order"
            )
        seconds = (time.perf_counter() - began) / len(requests)
        return [
            self._answer(one, request, seconds) for one, request in zip(said, requests, strict=True)
        ]

    def _answer(self, said: Any, request: Request, seconds: float) -> Answer | Failure:
        if isinstance(said, str):
            said = Answer(text=said.strip(), usage=Usage())
        if isinstance(said, Failure):
            return said
        if not isinstance(said, Answer):
            raise ModelError(
                f"{self.name} returned {type(said).__name__} {said!r:.60} as an answer; it must "
                "be a text, an Answer or a Failure of m3router.m3core.options"
            )
        usage = said.usage
        usage = replace(
            usage,
            seconds=seconds if usage.seconds is None else usage.seconds,
            attempts=usage.attempts or 1,
            pixels=usage.pixels or request.image.width * request.image.height,
        )
        if usage.cost is None:
            known = self._cost(request.image, request.option)
            usage = replace(usage, cost=usage.seconds if known is None else known)
        return replace(said, usage=usage)

    def _cost(self, image: Image.Image, option: str) -> float | None:
        if self.costs is None:
            return None
        if isinstance(self.costs, Mapping):
            return float(self.costs[option])
        return float(self.costs(image, option))


def is_reference(name: str) -> bool:
    """Whether a model's name is ``package.module:thing``.

    >>> is_reference("readers.ocr:model"), is_reference("org/model"), is_reference("C:/model")
    (True, False, False)
    """
    return _REFERENCE.fullmatch(name) is not None


def load_reference(name: str, *, options: Sequence[str] | None = None) -> OptionModel:
    """Import ``package.module:thing`` and make a model of it.

    The working directory is looked in first, as ``python -m`` does.

    Args:
        name: The thing is an :class:`OptionModel`; or a factory, which takes no arguments and
            returns one; or the function itself, ``(images, questions, option) -> answers``.
        options: Names of the options of a function, coarsest first.

    Raises:
        ModelError: If it cannot be imported, or is none of these.
    """
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ModelError(
            f"the model {name!r} cannot be imported: {error}. {module_name} must be a module that "
            "Python finds, or a file in this folder."
        ) from error
    if not hasattr(module, attribute):
        public = [one for one in vars(module) if not one.startswith("_")]
        raise ModelError(f"{module_name}: {unknown_name('name', attribute, public)}")
    thing = getattr(module, attribute)
    if callable(thing) and not _is_model(thing):
        thing = _called(thing, name, options)
    if not _is_model(thing):
        raise ModelError(
            f"{name} is {type(thing).__name__}, no model: it must be an OptionModel, a factory "
            "without arguments that returns one, or a function (images, questions, option)"
        )
    if isinstance(thing, FunctionModel):
        thing.reference = name
    model: OptionModel = thing
    return model


def _called(thing: Callable[..., Any], name: str, options: Sequence[str] | None) -> Any:
    """What a factory returns, or a function as a model."""
    parameters = inspect.signature(thing).parameters.values()
    needed = [one for one in parameters if one.default is one.empty and one.kind in (0, 1)]
    if not needed:
        return thing()
    if len(needed) != 3:
        raise ModelError(
            f"{name} takes {len(needed)} arguments; a factory takes none, a function takes three: "
            "images, questions and the option's name"
        )
    if not options:
        raise ModelError(
            f"{name} is a function, and its options are not known: name them from the coarsest "
            "on, such as --option small --option large"
        )
    return FunctionModel(thing, options=options, name=thing.__name__)


def _is_model(thing: Any) -> bool:
    return not isinstance(thing, type) and isinstance(thing, OptionModel)


def _source_hash(function: Function) -> str:
    """Hash of the file that defines a function; of its name where there is none."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:
        file = inspect.getsourcefile(type(function))
    if file is None or not Path(file).is_file():
        name = f"{function.__module__}:{getattr(function, '__qualname__', type(function))}"
        return hashlib.sha256(name.encode()).hexdigest()
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
