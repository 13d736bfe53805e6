"""What passes through which client: the table of `docs/clients.md`, tried with the clients."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from m3router.router.inference.pipeline import AutoScalePipeline
from tests.clients.driving import PROXY, SCRIPTS, Asked, ask, litellm_proxy
from tests.clients.tables import SERVER, table
from tests.serve.served import data_url, end, start
from tests.serve.small_run import make_small_run

SAYS = {
    "whole": "started without sampling",
    "streamed": "started without sampling",
    "temperature": "the operator can add --temperature ignore",
    "system": "the operator can add --system-text prepend",
    "history": "Conversations are not offered here",
    "tools": "tools: This server does not offer it",
}
"""What a client's user reads where a case is refused."""


def test_the_table_has_every_client():
    told = table(SERVER)
    assert list(told) == list(SCRIPTS)
    for column in told.values():
        assert set(column.values()) <= {"yes", "option", "refused"}


@dataclass(frozen=True)
class Served:
    """Two servers of one run, and what they are asked.

    Attributes:
        plain: Address of one without options.
        willing: Address of one with `--temperature honour --system-text prepend`.
        image: A data URL.
        question: About it.
        answer: What the pipeline answers.
        coarse: What it answers at the coarsest scale.
    """

    plain: str
    willing: str
    image: str
    question: str
    answer: str
    coarse: str

    def asked(self, base_url: str) -> Asked:
        return Asked(
            base_url=base_url,
            model="m3-auto",
            image=self.image,
            question=self.question,
            stop=self.answer[1:],
        )


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    run = make_small_run(tmp_path_factory.getbasetemp() / "small_run")
    pipeline = AutoScalePipeline.load(run.root, device="cpu")
    answers = [one.text for one in pipeline.answer(*map(list, zip(*run.asked, strict=True)))]
    place = next(place for place, text in enumerate(answers) if len(text) > 2)
    image, question = run.asked[place]
    (coarse,) = pipeline.answer([image], [question], scale=pipeline.model.grid.scales[0])
    with contextlib.ExitStack() as stack:
        urls = []
        for options in ([], ["--temperature", "honour", "--system-text", "prepend"]):
            server = start(tmp_path_factory.mktemp("served"), run.root, *options)
            stack.callback(end, server)
            urls.append(f"{server.url}/v1")
        yield Served(*urls, data_url(image), question, answers[place], coarse.text)


@pytest.mark.clients
@pytest.mark.parametrize("client", list(SCRIPTS))
def test_what_passes_through_a_client(client, served, cache, tmp_path):
    said = table(SERVER)[client]
    known = list(said)
    plain_asked, willing_asked = served.asked(served.plain), served.asked(served.willing)
    with contextlib.ExitStack() as stack:
        if client == PROXY:
            models = {"m3-auto": plain_asked, "m3-willing": willing_asked}
            url = stack.enter_context(litellm_proxy(models, tmp_path, cache=cache))
            plain_asked = replace(plain_asked, base_url=url)
            willing_asked = replace(willing_asked, base_url=url, model="m3-willing")
        plain = ask(client, plain_asked, known, cache=cache).found
        refused = [case for case in known if "error" in plain[case]]
        willing = ask(client, willing_asked, refused, cache=cache).found
    told = {
        case: "yes"
        if "error" not in plain[case]
        else ("refused" if "error" in willing[case] else "option")
        for case in known
    }
    assert told == said, {case: plain[case] for case in refused}
    wanted = {"detail": served.coarse, "stop": served.answer[0]}
    for case, answer in plain.items():
        if case in refused:
            error = answer["error"]
            assert SAYS[case] in error["text"], error
            assert error["status"] in (400, None) and "base64" not in error["text"]
        elif case == "models":
            assert "m3-auto" in answer["text"]
        else:
            assert answer["text"] == wanted.get(case, served.answer), case
            assert answer.get("finish_reason", "stop") == "stop"
            assert answer.get("tokens") != 0
    for answer in willing.values():
        assert "error" in answer or answer["text"]
