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

import functools
import hashlib
import importlib
import inspect
import json
import math
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from m3router.data.errors import M3RouterError, MismatchError, ModelError, listed
from m3router.data.registry import nearest
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
QUESTION_ARGUMENTS = 3
"""Arguments of a function that answers."""
SHOWN = 10
"""Names of a module that are shown at most."""
_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class FunctionModel:
    """A function that answers, with its options and what they cost.

    Args:
        function: ``(images, questions, option) -> answers``; images are RGB, and the same object
            where several questions are about one image. What it raises becomes an error record of
            the question it was asked alone, and so does the answer None.
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
        for option, cost in costs.items() if isinstance(costs, Mapping) else ():
            if (problem := _cost_problem(cost)) is not None:
                raise MismatchError(f"the cost of option {option!r} {problem}")
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise ModelError(
                f"{_name_of(function)} is an async function, whose answers nobody would wait for: "
                "give a plain one, such as one that calls asyncio.run"
            )
        self.costs = costs
        self._cost_unit = cost_unit or (SECONDS if costs is None else "cost")
        self.name = str(name or _name_of(function))
        self.max_new_tokens = max_new_tokens
        self._source = revision or _source_hash(function)
        asked = json.dumps([self._source, list(options), self._cost_unit])
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
    def deciding(self) -> Mapping[str, Any]:
        """What decides the answers, for a message that says what differs."""
        return {"source": self._source}

    @property
    def spec(self) -> Mapping[str, Any]:
        """Where the function is found again, if it was loaded by such a reference."""
        return {
            "kind": "function",
            "name": self.reference,
            "options": [option.name for option in self.options],
        }

    def count(self, image: Image.Image, option: str) -> Usage:
        """The cost, where it is known before asking, and the image's pixels.

        Raises:
            MismatchError: If there is no such option.
            ModelError: If the function of the costs raises, or returns no cost.
        """
        check_option(self, option)
        return Usage(cost=self._cost(image, option), pixels=image.width * image.height)

    def answer(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """Call the function once for each option among the requests.

        Raises:
            MismatchError: If there is no such option.
            ModelError: If it returns no answers, too few or too many.
        """
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
            returned = self.function(images, questions, option)
            said = returned if returned is None or _is_one_value(returned) else list(returned)
        except (KeyboardInterrupt, ModelError):
            raise
        # A user's function may raise anything, and some libraries' errors are no Exception. It
        # must not stop the others' labelling.
        except BaseException as error:
            if len(requests) > 1:
                return [self._ask([one], option)[0] for one in requests]
            return [Failure(message=f"{self.name} raised {type(error).__name__}: {error}")]
        if not isinstance(said, list):
            raise ModelError(
                f"{self.name} returned {type(said).__name__} {said!r:.60} to {len(requests)} "
                "questions; it must return a list of answers, one for each question, in their order"
            )
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
        if said is None:
            return Failure(message=f"{self.name} returned None, which is no answer")
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
            try:
                known = self._cost(request.image, request.option)
            except ModelError as error:
                return Failure(message=str(error), usage=usage)
            usage = replace(usage, cost=usage.seconds if known is None else known)
        return replace(said, usage=usage)

    def _cost(self, image: Image.Image, option: str) -> float | None:
        if self.costs is None:
            return None
        if isinstance(self.costs, Mapping):
            return float(self.costs[option])
        try:
            cost = self.costs(image, option)
        except Exception as error:  # a user's function, too
            raise ModelError(
                f"the cost of option {option!r} is not known: {type(error).__name__}: {error}"
            ) from error
        if (problem := _cost_problem(cost)) is not None:
            raise ModelError(f"the cost of option {option!r} {problem}")
        return float(cost)


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
        name: The thing is an :class:`OptionModel`; or the function itself, ``(images, questions,
            option) -> answers``; or a factory, which takes no arguments and returns one of them.
        options: Names of the options of a function, coarsest first; None for its attribute
            ``options``, where it has one.

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
    except (Exception, SystemExit) as error:  # whatever a user's module does when it is run
        raise ModelError(
            f"the model {name!r} cannot be imported: {module_name} raised "
            f"{type(error).__name__}: {error}{_place(error)}"
        ) from error
    if not hasattr(module, attribute):
        raise ModelError(f"{module_name}: {_unknown(module, attribute)}")
    thing = getattr(module, attribute)
    if callable(thing) and not _is_model(thing):
        thing = _called(thing, name, options)
    if callable(thing) and not _is_model(thing) and len(_needed(thing)) == QUESTION_ARGUMENTS:
        thing = _called(thing, name, options)
    if not _is_model(thing):
        raise ModelError(
            f"{name} is {type(thing).__name__}, no model: it must be an OptionModel, a factory "
            "without arguments that returns one, or a function (images, questions, option)"
        )
    if isinstance(thing, FunctionModel):
        thing.reference = name
    model: OptionModel = thing
    own = [option.name for option in model.options]
    if options is not None and list(options) != own:
        raise MismatchError(
            f"{name} has the options {', '.join(own)} by itself, and was given "
            f"{', '.join(options)}: leave --option out"
        )
    return model


def _unknown(module: ModuleType, attribute: str) -> str:
    """That a module has no such thing, and at most `SHOWN` that could be a model."""
    public = [
        one
        for one, thing in vars(module).items()
        if not one.startswith("_") and (callable(thing) or _is_model(thing))
    ]
    close = nearest(attribute, public)
    hint = f" Did you mean {close!r}?" if close else ""
    known = listed(sorted(public), SHOWN) or "nothing that can be called"
    return f"Unknown name {attribute!r}.{hint} Known: {known}."


def _called(thing: Callable[..., Any], name: str, options: Sequence[str] | None) -> Any:
    """What a factory returns, or a function as a model."""
    needed = _needed(thing)
    if not needed:
        try:
            return thing()
        except M3RouterError:
            raise
        except Exception as error:  # a user's factory may raise anything
            raise ModelError(
                f"{name} raised {type(error).__name__}: {error}{_place(error)}"
            ) from error
    if len(needed) != QUESTION_ARGUMENTS:
        raise ModelError(
            f"{name} takes {len(needed)} arguments ({', '.join(needed)}); a factory takes none, a "
            "function takes three: images, questions and the option's name"
        )
    if options is None and _is_names(found := getattr(thing, "options", None)):
        options = list(found or ())
    if not options:
        raise ModelError(
            f"{name} is a function, and its options are not known: name them from the coarsest "
            "on, such as --option small --option large"
        )
    return FunctionModel(thing, options=options, name=_name_of(thing))


def _needed(thing: Callable[..., Any]) -> list[str]:
    """Names of the arguments that a thing cannot be called without.

    Raises:
        ModelError: If Python cannot tell.
    """
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"what arguments {_name_of(thing)} takes cannot be told ({error}): wrap it in a "
            "function (images, questions, option)"
        ) from error
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one.name for one in parameters if one.default is one.empty and one.kind not in optional]


def _name_of(function: Any) -> str:
    return str(getattr(_inner(function), "__qualname__", type(function).__name__))


def _inner(function: Any) -> Any:
    """The function in a partial one."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _is_names(found: Any) -> bool:
    return isinstance(found, list | tuple) and all(isinstance(one, str) for one in found)


def _is_one_value(returned: Any) -> bool:
    """Whether something that could be iterated over is no list of answers all the same."""
    return isinstance(returned, str | bytes | Mapping | set | Answer | Failure)


def _cost_problem(cost: Any) -> str | None:
    """Why something is no cost."""
    try:
        number = math.nan if isinstance(cost, bool | str) else float(cost)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isfinite(number) and number >= 0:
        return None
    return f"must be a number from 0 upwards, got {cost!r:.60}"


def _place(error: BaseException) -> str:
    """Where in a user's code an error was raised, for a message that has no traceback."""
    if isinstance(error, SyntaxError):
        return ""  # it says so itself
    last = traceback.extract_tb(error.__traceback__)[-1:]
    return "".join(f" ({Path(one.filename).name}, line {one.lineno})" for one in last)


def _is_model(thing: Any) -> bool:
    return not isinstance(thing, type) and isinstance(thing, OptionModel)


def _source_hash(function: Function) -> str:
    """Hash of the file that defines a function; of its code, or name, where there is none."""
    inner = inspect.unwrap(_inner(function))
    try:
        file = inspect.getsourcefile(inner)
    except TypeError:
        inner = type(inner)
        file = _file_of(inner)
    if file is not None and Path(file).is_file():
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    code = getattr(inner, "__code__", None)
    written = b"" if code is None else code.co_code + repr(code.co_consts).encode()
    name = f"{getattr(inner, '__module__', '')}:{_name_of(inner)}"
    return hashlib.sha256(name.encode() + written).hexdigest()


def _file_of(kind: type) -> str | None:
    """The file of a class; None for one that is built in."""
    try:
        return inspect.getsourcefile(kind)
    except TypeError:
        return None
