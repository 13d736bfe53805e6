"""A model behind an OpenAI-compatible endpoint, asked at several options."""

from __future__ import annotations

import hashlib
import json
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import PIL
from PIL import Image

from m3router.data.errors import DataError, ImageError, M3RouterError, ModelError
from m3router.data.registry import unknown_name
from m3router.m3core.endpoint.caller import (
    Called,
    Caller,
    GaveUpError,
    RefusedError,
    refusal_text,
)
from m3router.m3core.endpoint.completions import Completion
from m3router.m3core.endpoint.endpoint_options import (
    EndpointOption,
    EndpointOptions,
)
from m3router.m3core.endpoint.failure_watch import FailureKind, FailureWatch
from m3router.m3core.endpoint.keys import Key
from m3router.m3core.endpoint.merge_patch import merge_patch
from m3router.m3core.endpoint.meter import Meter, MeterReading
from m3router.m3core.endpoint.once_cache import OnceCache
from m3router.m3core.endpoint.probing import (
    ANSWER_TOKENS,
    QUESTION,
    SIZES,
    Probed,
    ProbeReport,
    differing,
    makes_difference,
    neighbours,
    probe_image,
)
from m3router.m3core.endpoint.remedies import likely_reason
from m3router.m3core.endpoint.retries import RetryPolicy
from m3router.m3core.endpoint.sent_images import RESAMPLING, SentImage
from m3router.m3core.endpoint.server_facts import (
    ServerFacts,
    ServerWatch,
    known_models,
)
from m3router.m3core.endpoint.token_counts import TokenCounts, read_usage
from m3router.m3core.endpoint.transport import Transport, check_timeout
from m3router.m3core.options import (
    Answer,
    Failure,
    Option,
    Request,
    Source,
    Usage,
    check_option,
    options_named,
)

COST_UNITS = ("image tokens", "price", "pixels", "seconds", "prompt tokens")
MAX_NEW_TOKENS = 16
QUESTIONS_KEPT = 100_000
"""Questions whose tokens without an image are remembered."""

NOT_COUNTED = (
    "prompt_tokens with an image are not more than without it: the server ignores images, or does "
    "not count them; no image tokens are kept"
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _End:
    """How a request ended.

    Attributes:
        request: The request.
        result: Its answer or failure; None where nothing can be asked any more.
        kind: In what way it failed; None where it did not.
        error: Why nothing can be asked any more.
    """

    request: Request
    result: Answer | Failure | None = None
    kind: FailureKind | None = None
    error: BaseException | None = None


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """How an endpoint is asked.

    Attributes:
        url: As :func:`m3router.m3core.endpoint.keys.base_url` gives it.
        options: The options; every one has a model.
        max_new_tokens: Tokens of the longest answer, where a request names no other limit.
        cost_unit: What ``Usage.cost`` counts.
        in_flight: Most requests at the same time.
        timeout_s: Seconds in which a response must have come.
    """

    url: str
    options: EndpointOptions
    max_new_tokens: int = MAX_NEW_TOKENS
    cost_unit: str = "image tokens"
    in_flight: int = 8
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        """Check them.

        Raises:
            DataError: If a number is out of its range, the unit unknown, or prices are missing.
        """
        for name in ("max_new_tokens", "in_flight"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise DataError(f"{name} must be a whole number of at least 1")
        check_timeout(self.timeout_s)
        if self.cost_unit not in COST_UNITS:
            raise DataError(unknown_name("cost unit", self.cost_unit, COST_UNITS))
        for one in self.options.options:
            if self.cost_unit == "price" and one.prices is None:
                raise DataError(
                    f"the cost is the price, and option {one.name!r} has none: write `price` into "
                    "the file of options, or give --price, or another cost unit"
                )


class EndpointModel:
    """A model (or several) behind an OpenAI-compatible endpoint.

    Made by :func:`m3router.m3core.endpoint.connecting.connect`.

    Attributes:
        name: The server's names of the models that are asked; the address is in ``provenance``.
        revision: Hash of what decides the answers: names, models, patches, sizes and encodings of
            the options, and the names that the server's responses give the models. The address
            is not in it, so that the same server is the same model by another address.
        max_new_tokens: Tokens of the longest answer, where a request names no other limit.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        key: Key | None = None,
        max_requests: int | None = None,
        retry: RetryPolicy | None = None,
        facts: ServerFacts | None = None,
    ) -> None:
        models = dict.fromkeys(str(one.model) for one in settings.options.options)
        self.name = ", ".join(models)
        self.max_new_tokens = settings.max_new_tokens
        self._settings = settings
        self._key = key
        self._options = options_named(one.name for one in settings.options.options)
        self._by_name = {one.name: one for one in settings.options.options}
        self._transport = Transport(
            settings.url, key=key, connections=settings.in_flight, timeout=settings.timeout_s
        )
        self._meter = Meter(max_requests)
        self._caller = Caller(
            self._transport,
            retry=retry or RetryPolicy(),
            meter=self._meter,
            key=key,
            models=lambda asked: known_models(self._transport, asked),
        )
        self._watch = FailureWatch()
        self._sent: OnceCache[tuple[Image.Image, SentImage]] = OnceCache(
            2 * settings.in_flight + len(self._options)
        )
        self._texts: OnceCache[int | None] = OnceCache(QUESTIONS_KEPT)
        self._unnamed: set[str | None] = set()
        """Models whose usage names no image tokens."""
        self._server = ServerWatch(self._transport, facts or ServerFacts(), warn=self._warn)
        self._pinned = self._server.facts
        self.revision = self._revision()

    def __repr__(self) -> str:
        return (
            f"EndpointModel({self._settings.url!r}, options={[one.name for one in self._options]})"
        )

    def __enter__(self) -> EndpointModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    @property
    def options(self) -> tuple[Option, ...]:
        """Coarsest first."""
        return self._options

    @property
    def cost_unit(self) -> str:
        """What ``Usage.cost`` counts."""
        return self._settings.cost_unit

    @property
    def meter(self) -> MeterReading:
        """What was used so far; as a text, one line for a progress bar."""
        return self._meter.reading

    @property
    def deciding(self) -> Mapping[str, Any]:
        """What decides the answers at each option, for a message that says what differs."""
        return {
            name: {
                **{key: value for key, value in one.deciding().items() if value is not None},
                **({"price": one.prices.as_json()} if self._priced(one) and one.prices else {}),
            }
            for name, one in self._by_name.items()
        }

    def _priced(self, option: EndpointOption) -> bool:
        """Whether an option's prices are its cost."""
        return self.cost_unit == "price" and option.prices is not None

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What made the answers; read it at the end of a run, when it has the warnings too."""
        settings = self._settings
        return {
            "backend": "endpoint",
            "url": settings.url,
            "preset": settings.options.preset,
            "options": [one.as_json() for one in settings.options.options],
            "prompt": "image, then question; temperature 0",
            "stream": settings.options.stream,
            "images": {"resampling": RESAMPLING, "pillow": PIL.__version__},
            "server": self._server.facts.as_json(),
            "warnings": dict(self.meter.warnings),
        }

    @property
    def spec(self) -> Mapping[str, Any]:
        """How :func:`m3router.m3core.endpoint.connecting.from_spec` makes it again; has no key."""
        settings = self._settings
        return {
            "kind": "endpoint",
            "url": settings.url,
            "preset": settings.options.preset,
            "options": settings.options.as_json(),
            "max_new_tokens": settings.max_new_tokens,
            "cost_unit": settings.cost_unit,
            "in_flight": settings.in_flight,
            "timeout_s": settings.timeout_s,
            "key": None if self._key is None else self._key.source,
            "server": self._pinned.as_json(),
        }

    def count(self, image: Image.Image, option: str) -> Usage:
        """The pixels that would be sent; what a server makes of them is known from its answer.

        Raises:
            MismatchError: If there is no such option.
        """
        check_option(self, option)
        width, height = self._by_name[option].sending.size(*image.size)
        pixels = width * height
        return Usage(pixels=pixels, cost=float(pixels) if self.cost_unit == "pixels" else None)

    def answer(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """Answer requests, in their order; as many at the same time as may be.

        Raises:
            MismatchError: If there is no such option.
            ModelError: If nothing can be asked any more.
        """
        for one in requests:
            check_option(self, one.option)
        results = {id(request): result for request, result in self.answer_each(requests)}
        return [results[id(one)] for one in requests]

    def answer_each(
        self, requests: Iterable[Request]
    ) -> Iterator[tuple[Request, Answer | Failure]]:
        """Answer requests in any order, as the answers come.

        Requests are taken from the iterable only when there is room for another one in flight.
        Whoever leaves the iterator before its end gives up what is in flight.

        Raises:
            MismatchError: If there is no such option; what was in flight was given before.
            RequestLimitError: If the largest number of requests was sent; likewise.
            ModelError: If nothing can be asked any more; likewise.
        """
        waiting = iter(requests)
        ends: queue.SimpleQueue[_End] = queue.SimpleQueue()
        stop = threading.Event()
        error: BaseException | None = None
        ended, flying = False, 0
        try:
            while True:
                while error is None and not ended and flying < self._settings.in_flight:
                    try:
                        request = next(waiting)
                        check_option(self, request.option)
                    except StopIteration:
                        ended = True
                    except M3RouterError as found:
                        error = found
                    else:
                        self._begin(request, ends, stop)
                        flying += 1
                if not flying:
                    break
                end = ends.get()
                flying -= 1
                error = error or end.error
                if end.result is not None:
                    yield end.request, end.result
                    error = error or self._judged(end)
        finally:
            stop.set()
        self._server.look_again()
        if error is not None:
            raise error

    def probe(self) -> ProbeReport:
        """Ask each option once about a synthetic image, and record what server this is.

        Raises:
            ModelError: If an option is refused, or changes nothing against the next coarser one
                with the same model.
        """
        self._server.look()
        asked = [self._probed(one, SIZES[0]) for one in self._settings.options.options]
        for one in asked:
            self._check_cost(one)
        by_name = {one.option.name: one for one in asked}
        unchecked = []
        for coarser, finer in neighbours(self._settings.options.options):
            pair = (by_name[coarser.name], by_name[finer.name])
            _check_order(*pair)
            differs = makes_difference(*pair)
            if differs is False:
                pair = (self._probed(coarser, SIZES[1]), self._probed(finer, SIZES[1]))
                differs = makes_difference(*pair)
            knobs = differing(coarser, finer)
            if differs is False:
                raise ModelError(self._ignored(pair, knobs))
            if differs is None:
                unchecked.append(
                    f"whether {' and '.join(knobs)} makes a difference between the options "
                    f"{coarser.name!r} and {finer.name!r}: the server names no tokens and no "
                    "log-probabilities, and answered the same"
                )
        for sentence in unchecked:
            logger.warning("not checked: %s", sentence)
        self._server.note(unchecked=tuple(unchecked))
        self._pinned = self._server.facts
        self.revision = self._revision()
        answers = {
            one.option.name: {
                "text": one.completion.text,
                "prompt_tokens": one.counts.prompt,
                "image_tokens": one.counts.image,
            }
            for one in asked
        }
        return ProbeReport(answers=answers, unchecked=tuple(unchecked))

    # Asking

    def _begin(
        self, request: Request, ends: queue.SimpleQueue[_End], stop: threading.Event
    ) -> None:
        """Ask in a thread of its own; a daemon, so that Ctrl-C need not wait for servers."""

        def ask() -> None:
            try:
                end = self._end(request, stop)
            except BaseException as error:  # noqa: B902 - it is raised where the answers are read
                end = _End(request=request, error=error)
            ends.put(end)

        threading.Thread(target=ask, name="endpoint", daemon=True).start()

    def _end(self, request: Request, stop: threading.Event) -> _End:
        """Ask, and say how it ended.

        Raises:
            ModelError: If nothing can be asked any more.
        """
        option = self._by_name[request.option]
        if not request.question.strip():
            return _End(
                request=request,
                result=Failure(message="The question is empty; give one with at least one word."),
            )
        try:
            result, kind = self._answer(request, option, stop)
        except ImageError as error:
            return _End(request=request, result=Failure(message=str(error)))
        except UnicodeEncodeError as error:
            cause = f"The question is no text that can be sent: {error.reason}."
            return _End(request=request, result=Failure(message=cause))
        except RefusedError as error:
            self._meter.failed()
            message = refusal_text(error, option=option.name)
            return _End(
                request=request,
                result=Failure(message=message, usage=Usage(attempts=error.attempts)),
                kind=FailureKind(refused=True, said=message),
            )
        except GaveUpError as error:
            self._meter.failed()
            message = f"the endpoint gave {error}; ask again later with --retry-errors"
            return _End(
                request=request,
                result=Failure(message=message, usage=Usage(attempts=error.attempts)),
                kind=FailureKind(refused=False, said=str(error)),
            )
        return _End(request=request, result=result, kind=kind)

    def _judged(self, end: _End) -> ModelError | None:
        """Whether a failure is one of all requests."""
        if isinstance(end.result, Answer):
            self._watch.answered(end.request.option)
        if end.kind is None:
            return None
        why = self._watch.failed(end.request.option, end.kind, end.request.image)
        return None if why is None else ModelError(why)

    def _answer(
        self, request: Request, option: EndpointOption, stop: threading.Event
    ) -> tuple[Answer | Failure, FailureKind | None]:
        """An answer; or a failure, and its kind where all requests may fail so."""
        longest = request.max_new_tokens or self.max_new_tokens
        sent = self._sent_image(request.image, option)
        if option.model in self._unnamed:  # before the answer, so that no failure here loses one
            self._derived_from(option, request.question, stop)
        called = self._caller.call(
            self._body(option, request.question, sent, longest=longest), stop=stop
        )
        completion = called.completion
        self._server.check(option, completion)
        counts = self._counts(completion, longest)
        price = self._metered(option, called, counts)
        tokens = self._image_tokens(option, request.question, counts, stop)
        usage = self._usage(sent, called, counts, tokens, price)
        if completion.missing is not None:
            self._meter.failed()
            kind = FailureKind(refused=True, said=completion.missing) if completion.always else None
            return Failure(message=completion.missing, usage=usage), kind
        return Answer(
            text=completion.text,
            usage=usage,
            confidence=completion.confidence,
            logprob=completion.logprob,
            cut=completion.cut,
        ), None

    def _sent_image(self, image: Image.Image, option: EndpointOption) -> SentImage:
        """The image as it is sent, encoded once for all questions and options that send it alike.

        The image is kept beside it, so that no other one gets its ``id``.
        """
        key = (id(image), option.sending)
        return self._sent.get(key, lambda: (image, option.sending.encode(image)))[1]

    def _body(
        self, option: EndpointOption, question: str, image: SentImage | None, *, longest: int
    ) -> dict[str, Any]:
        """The body of a request; the image stands first, so that servers can share its prefix."""
        content: list[dict[str, Any]] = [{"type": "text", "text": question}]
        if image is not None:
            part = {**merge_patch({}, option.image), "url": image.url}
            content.insert(0, {"type": "image_url", "image_url": part})
        body: dict[str, Any] = {
            "model": option.model,
            "messages": [{"role": "user", "content": content}],
            option.length_field: longest,
            "temperature": 0,
        }
        options = self._settings.options
        if (
            options.logprobs
            and option.model not in self._server.facts.no_logprobs
            and image is not None
        ):
            body |= {"logprobs": True, "top_logprobs": 1}
        if options.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return merge_patch(body, option.body)

    # What it cost

    def _counts(
        self, completion: Completion, longest: int, *, with_image: bool = True
    ) -> TokenCounts:
        counts = read_usage(completion.usage, max_tokens=longest, with_image=with_image)
        if counts.wrong is not None:
            self._warn(f"a usage that cannot be: {counts.wrong}; its counts are not kept")
        return counts

    def _metered(
        self, option: EndpointOption, called: Called, counts: TokenCounts, *, images: int = 1
    ) -> float | None:
        """Count what was asked; returns its price where that is known."""
        price = None
        if option.prices is not None:
            price = option.prices.of_answer(
                prompt=counts.prompt, cached=counts.cached, answer=counts.answer, images=images
            )
        self._meter.answered(
            prompt=counts.prompt,
            cached=counts.cached,
            answer=counts.answer,
            price=price,
            seconds=called.seconds,
        )
        return price

    def _usage(
        self,
        sent: SentImage,
        called: Called,
        counts: TokenCounts,
        tokens: tuple[int | None, Source | None],
        price: float | None,
    ) -> Usage:
        costs = {
            "image tokens": tokens[0],
            "prompt tokens": counts.prompt,
            "price": price,
            "pixels": sent.pixels,
            "seconds": called.seconds,
        }
        cost = costs[self.cost_unit]
        return Usage(
            cost=None if cost is None else float(cost),
            image_tokens=tokens[0],
            image_tokens_from=tokens[1],
            prompt_tokens=counts.prompt,
            cached_tokens=counts.cached,
            answer_tokens=counts.answer,
            seconds=called.seconds,
            attempts=called.attempts,
            pixels=sent.pixels,
            price=price,
        )

    def _image_tokens(
        self, option: EndpointOption, question: str, counts: TokenCounts, stop: threading.Event
    ) -> tuple[int | None, Source | None]:
        """Tokens of the image: as reported, or derived from a request of the same words alone."""
        if counts.image is not None:
            return counts.image, "reported"
        if counts.prompt is None:
            return None, None
        self._unnamed.add(option.model)
        alone = self._derived_from(option, question, stop)
        if alone is None:
            return None, None
        if counts.prompt <= alone:
            self._warn(NOT_COUNTED)
            return None, None
        return counts.prompt - alone, "derived"

    def _derived_from(
        self, option: EndpointOption, question: str, stop: threading.Event
    ) -> int | None:
        """Tokens of the prompt without its image, asked for once; None where that is not known."""
        try:
            return self._texts.get(
                (option.model, question), lambda: self._text_tokens(option, question, stop)
            )
        except GaveUpError:
            self._warn(
                "a question alone got no answer, so the tokens of its image could not be derived"
            )
            return None

    def _text_tokens(
        self, option: EndpointOption, question: str, stop: threading.Event
    ) -> int | None:
        """Tokens of the prompt without an image; None where the server does not tell.

        Raises:
            GaveUpError: If no attempt brought an answer; another time one may.
        """
        try:
            called = self._caller.call(self._body(option, question, None, longest=1), stop=stop)
        except RefusedError as error:
            self._warn(
                "the server refuses a question without an image, so image tokens cannot be "
                f"derived (status {error.status})"
            )
            return None
        counts = self._counts(called.completion, 1, with_image=False)
        self._metered(option, called, counts, images=0)
        return counts.prompt

    # What server this is

    def _probed(self, option: EndpointOption, size: tuple[int, int]) -> Probed:
        """An option's answer about the synthetic image.

        Raises:
            ModelError: If there is none.
        """
        sent = self._sent_image(probe_image(*size), option)

        def call() -> Called:
            body = self._body(option, QUESTION, sent, longest=ANSWER_TOKENS)
            return self._caller.call(body, stop=threading.Event())

        try:
            called = self._without_logprobs_if_refused(option, call)
        except RefusedError as error:
            raise ModelError(
                f"{refusal_text(error, option=option.name)}. The option was tried with one "
                "synthetic image before anything was asked."
            ) from error
        except GaveUpError as error:
            raise ModelError(f"option {option.name!r} could not be tried: {error}") from error
        self._server.check(option, called.completion)
        counts = self._counts(called.completion, ANSWER_TOKENS)
        price = self._metered(option, called, counts)
        tokens = self._image_tokens(option, QUESTION, counts, threading.Event())
        usage = self._usage(sent, called, counts, tokens, price)
        return Probed(option=option, completion=called.completion, counts=counts, usage=usage)

    def _check_cost(self, probed: Probed) -> None:
        """Refuse to go on where every answer would come without a cost.

        Raises:
            ModelError: If it would.
        """
        if probed.usage.cost is None:
            why = probed.counts.wrong or "its usage does not name them"
            why = NOT_COUNTED if NOT_COUNTED in self.meter.warnings else why
            raise ModelError(
                f"{self._server.facts} does not say what an answer costs in {self.cost_unit} at "
                f"option {probed.option.name!r} ({why}): choose another cost unit, such as pixels "
                "or seconds"
            )

    def _without_logprobs_if_refused(
        self, option: EndpointOption, call: Callable[[], Called]
    ) -> Called:
        """Some servers refuse a request because of log-probabilities: then leave them out."""
        model, left_out = str(option.model), self._server.facts.no_logprobs
        try:
            return call()
        except RefusedError as refused:
            if not self._settings.options.logprobs or model in left_out:
                raise
            self._server.note(no_logprobs=(*left_out, model))
            try:
                return call()
            except RefusedError:
                self._server.note(no_logprobs=left_out)  # they were not the cause
                raise refused from None

    def _ignored(self, pair: tuple[Probed, Probed], knobs: Sequence[str]) -> str:
        """Why an option that changes nothing is refused."""
        coarser, finer = pair
        counts = finer.counts
        named = counts.prompt if counts.image is None else counts.image
        kind = "prompt" if counts.image is None else "image"
        tokens = "the same answer" if named is None else f"{named} {kind} tokens and one answer"
        return (
            f"option {finer.option.name!r} changes nothing against {coarser.option.name!r}: "
            f"{self._server.facts} gave both {tokens} for a large detailed image, though "
            f"{' and '.join(knobs)} differs; {likely_reason(knobs)}. Correct the option or take it "
            "out."
        )

    def _warn(self, what: str) -> None:
        if self._meter.warn(what):
            logger.warning("%s: %s", self._settings.url, what)

    def _revision(self) -> str:
        options = [
            {
                "name": one.name,
                **one.deciding(),
                "reported": self._pinned.reported.get(str(one.model)),
            }
            for one in self._settings.options.options
        ]
        text = json.dumps({"kind": "endpoint", "options": options}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _check_order(coarser: Probed, finer: Probed) -> None:
    """Refuse a finer option that costs less of a large detailed image than a coarser one.

    Raises:
        ModelError: If the image tokens, or those of the prompt, say so.
    """
    for name in ("image_tokens", "prompt_tokens"):
        less, more = (getattr(one.usage, name) for one in (finer, coarser))
        if less is None or more is None:
            continue
        if less < more:
            raise ModelError(
                f"option {finer.option.name!r} has {less} {name.replace('_', ' ')} of a large "
                f"image, and {coarser.option.name!r} before it has {more}: write the options from "
                "the coarsest to the finest"
            )
        return
