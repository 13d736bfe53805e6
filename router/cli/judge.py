"""`m3router judge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from m3router.data.errors import DataError
from m3router.data.json_files import parse_json
from m3router.data.log.checks import JUDGE
from m3router.data.log.oracle_log import OracleLog
from m3router.data.prices import Prices
from m3router.data.scoring.judged import is_waiting
from m3router.data.sources.examples import load_examples
from m3router.m3core.endpoint.keys import base_url
from m3router.m3core.endpoint.meter import RequestLimitError
from m3router.m3core.judging.judge import IN_FLIGHT, connect_judge
from m3router.m3core.judging.protocols.base import Protocol
from m3router.m3core.judging.protocols.table import protocol as protocol_of
from m3router.m3core.judging.run import JudgingStopped
from m3router.router.cli import next_steps
from m3router.router.cli.console import progress, show_table
from m3router.router.cli.endpoint_options import (
    InFlight,
    KeyFile,
    KeyVariable,
    MaxRequests,
    RequestTimeout,
    key_of,
    prices_of,
)
from m3router.router.cli.exit_codes import SOME_FAILED, STOPPED
from m3router.router.cli.options import RunFolder
from m3router.router.cli.streams import out as console
from m3router.router.runs.run import Run
from m3router.router.stages.judging import judge_stage, protocol_for
from m3router.router.text.numbers import count, number, percent


def judge(
    run: RunFolder,
    url: Annotated[
        str,
        typer.Option("--judge", help="Address of an OpenAI-compatible server.", show_default=False),
    ],
    model: Annotated[str, typer.Option(help="The server's name of the judge.", show_default=False)],
    protocol: Annotated[
        str | None,
        typer.Option(
            help="mm-vet, llava-bench or video-qa. [default: by the log's metrics and data sets]",
            show_default=False,
        ),
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(
            help="Examples that the log was made from: what the judge is told of the images "
            "(llava-bench), and references that the log lacks.",
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            help="Judge this data set only; may be repeated. [default: all of the protocol]",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        Path | None,
        typer.Option(
            help="Tell the judge this text with {question}, {reference}, {answer} and {context}, "
            "not the published one.",
            show_default=False,
        ),
    ] = None,
    body: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="JSON merge patch of each request, such as "
            '{"max_tokens": null, "max_completion_tokens": 2000}.',
            show_default=False,
        ),
    ] = None,
    key_env: KeyVariable = None,
    key_file: KeyFile = None,
    in_flight: InFlight = IN_FLIGHT,
    request_timeout: RequestTimeout = 120.0,
    max_requests: MaxRequests = None,
    price: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND=PRICE",
            help="What the judge asks for a million tokens of input, output or cached, such as "
            "input=0.15; repeat it.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Have a log's answers scored by a judge, as a benchmark's published protocol does.

    For MM-Vet, LLaVA-Bench (in the Wild), and open-ended questions about videos. Works on any log
    with answers and references, imported ones too. Equal answers are judged once. Verdicts are
    kept as they come: after Ctrl-C, or --max-requests, the same command goes on. The log is
    replaced when all verdicts are there; as it was it stays in `judging/before`. Answers that
    could not be judged are error records; then the exit code is 3. See docs/judging.md.

    ```
    m3router judge run/ --judge http://localhost:8000/v1 --model Qwen/Qwen3-32B
    m3router judge run/ --judge https://api.example.org/v1 --model gpt-4 --key-env API_KEY
    ```
    """
    folder = Run(run)
    base_url(url)  # refused before anything is read
    told = _protocol(folder, protocol, prompt)
    known = [] if examples is None else load_examples(examples, looks=False)
    try:
        with (
            connect_judge(
                url,
                model=model,
                protocol=told,
                key=key_of(key_env, key_file),
                patch=_patch(body),
                prices=Prices.of(prices_of(price)) if price else None,
                in_flight=in_flight,
                max_requests=max_requests,
                timeout_s=request_timeout,
            ) as asked,
            progress("judging") as advance,
        ):
            log = judge_stage(
                folder,
                asked,
                examples=known,
                datasets=dataset or (),
                in_flight=in_flight,
                progress=lambda done, total: advance(done, total, ""),
            )
    except (JudgingStopped, RequestLimitError) as stopped:
        console.print(f"{stopped}", markup=False)
        ended = isinstance(stopped, JudgingStopped) and stopped.interrupted
        raise typer.Exit(STOPPED if ended else 0) from None
    _show(log)
    next_steps.after_judge(folder, log)
    failed = int(log.frame["error"].map(is_waiting).sum())
    if failed:
        first = log.frame["error"][log.frame["error"].map(is_waiting)].iloc[0]
        console.print(
            f"{count(failed, 'answer was', 'answers were')} {first}", style="yellow", markup=False
        )
        console.print("The same command asks for them again.")
        raise typer.Exit(SOME_FAILED)


def _protocol(run: Run, name: str | None, prompt: Path | None) -> Protocol:
    """The protocol, with another prompt where there is a file of one."""
    found = protocol_of(name or protocol_for(run.log(as_labelled=True)))
    if prompt is None:
        return found
    try:
        return found.with_prompt(prompt.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The prompt {prompt} cannot be read: {error}.") from error


def _patch(text: str | None) -> dict[str, Any]:
    try:
        found = parse_json(text or "{}")
    except ValueError as error:
        raise typer.BadParameter(f"--body: no JSON ({error})") from error
    if not isinstance(found, dict):
        raise typer.BadParameter('--body: an object of JSON is needed, such as {"top_p": 1}')
    return found


def _show(log: OracleLog) -> None:
    """Print scores by option, before and after, and what the benchmark publishes."""
    record = log.metadata[JUDGE]
    rows = log.frame[log.frame["metric"] == f"judge:{record['protocol']}"]
    means = rows.groupby("scale", sort=False)["score"].mean()
    before, published = record["before"], record["published"]
    names = list(dict.fromkeys(name for one in published.values() for name in one))
    header = ["option", *(f"{metric}, before" for metric in before), "judged", *names]
    table = [
        [
            option,
            *(percent(before[metric].get(option)) for metric in before),
            percent(means.get(option)),
            *(number(published.get(option, {}).get(name)) for name in names),
        ]
        for option in log.options
    ]
    models = ", ".join(record["models"]) or record["name"]
    console.print(
        f"{count(len(rows), 'answer')}, judged by {models} as {record['protocol']}", markup=False
    )
    show_table(header, table)
    used = record["usage"]
    tokens = f"{used['prompt_tokens'] or 0} + {used['answer_tokens'] or 0} tokens"
    money = "" if used["price"] is None else f", price {number(used['price'], digits=4)}"
    console.print(
        f"{count(used['verdicts'], 'verdict')}, {count(used['attempts'], 'request')}, "
        f"{tokens}{money}",
        style="dim",
    )
    for sentence in record["deviations"]:
        console.print(f"not as published: {sentence}", style="dim", markup=False)
