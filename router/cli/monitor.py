"""`m3router monitor`."""

from __future__ import annotations

from collections.abc import Mapping
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer

from m3router.data.progress import waiting
from m3router.data.sources.examples import load_examples
from m3router.router.cli import exit_codes, next_steps
from m3router.router.cli.console import show_table
from m3router.router.cli.options import PolicyName, RunFolder, seed_option
from m3router.router.cli.streams import out
from m3router.router.monitoring.regret import UNDECIDED
from m3router.router.runs.run import Run
from m3router.router.stages.monitoring import monitor_stage
from m3router.router.text.fractions import METAVAR, fraction
from m3router.router.text.numbers import count, number, percent, plain


def monitor(
    run: RunFolder,
    traffic: Annotated[
        Path,
        typer.Option(
            help="A run folder with the log and the features of fresh labelled traffic.",
            show_default=False,
        ),
    ],
    policy: PolicyName = "default",
    answers: Annotated[
        Path | None,
        typer.Option(
            help="Examples with right answers to questions that were labelled without.",
            show_default=False,
        ),
    ] = None,
    feedback: Annotated[
        Path | None,
        typer.Option(
            help="Folder that a server recorded the traffic to: count what those who asked said of "
            "their answers.",
            show_default=False,
        ),
    ] = None,
    false_alarm: Annotated[
        float,
        typer.Option(
            parser=fraction,
            metavar=METAVAR,
            help="Highest probability that a call raises an alarm although nothing changed.",
        ),
    ] = 0.01,
    bound: Annotated[
        str,
        typer.Option(
            help="betting, deadline, wsr, bentkus or binomial; only betting may be read again as "
            "traffic grows."
        ),
    ] = "betting",
    seed: Annotated[int, seed_option("Seed of the drift test.")] = 0,
    json: Annotated[
        bool, typer.Option("--json", help="Print everything as JSON instead of text.")
    ] = False,
) -> None:
    """Judge a policy on fresh labelled traffic, and look for drift.

    Recomputes the policy's regret and its bound, compares cost and accuracy with calibration,
    and tests whether the features still come from where the router's training features came
    from (kernel two-sample test, whole images permuted, Holm's correction over blocks). Label
    and featurize the traffic with the model and encoder of the run. Nothing is written.

    Questions without reference answers (metric `agreement`, such as recorded traffic) have no
    regret where routing and the reference option say the same, and an unknown one where they
    differ.
    That can prove "holds", and never "violated" unless `--answers` gives enough right answers, or
    `--feedback` tells of enough. Feedback gives the score of what was served, and of every option
    that says the very same; of other answers nothing, unless it has a right answer that they say.

    Half of `--false-alarm` goes to each of "violated" and "drift". With the betting bound, "holds"
    and "violated" may be read again and again while the traffic grows: their error probabilities
    are for all looks together. The drift test and the other bounds are per call.

    Exit codes: 0 all holds, or the policy has no guarantee and nothing drifted; 4 alarm; 5 no
    alarm, but not enough evidence for the guarantee yet.

    ```
    m3router monitor run/ --traffic week-34/ --policy safe --json
    ```
    """
    with waiting("testing"):
        found = monitor_stage(
            Run(run),
            Run(traffic),
            name=policy,
            references=load_examples(answers, looks=False) if answers else (),
            feedback=feedback,
            false_alarm=false_alarm,
            bound=bound,
            seed=seed,
        )
    if json:
        out.file.write(dumps(found, indent=2, allow_nan=False) + "\n")
    else:
        _show(found)
    next_steps.after_monitor(found, Run(run), Run(traffic), policy)
    if found["alarm"]:
        raise typer.Exit(exit_codes.ALARM)
    if found["regret"]["verdict"] == UNDECIDED:
        raise typer.Exit(exit_codes.UNDECIDED)


def _show(found: Mapping[str, Any]) -> None:

    regret, drift = found["regret"], found["drift"]
    rows = [("mean cost", number, "cost"), ("accuracy %", percent, "accuracy")]
    if found["accuracy"]["fresh"] is None:
        rows.append(("as reference %", percent, "agreement"))
    parts = ("calibrate", "fresh")
    show_table(
        ["", "calibration", "traffic"],
        [[title, *[show(found[name][part]) for part in parts]] for title, show, name in rows],
    )
    out.print(_regret_text(regret), style="" if regret["verdict"] == "holds" else "yellow")
    show_table(
        ["features", "MMD²", "p", "p, corrected", ""],
        [
            [
                block,
                number(one["mmd2"]),
                number(one["p_value"]),
                number(one["adjusted"]),
                "drift" if one["drifted"] else "",
            ]
            for block, one in drift.items()
        ],
    )
    if found["alarm"]:
        out.print("Alarm: this is no longer what the policy was calibrated on.", style="bold red")


def _regret_text(regret: Mapping[str, Any]) -> str:
    """One sentence about the guarantee."""
    part = f"{count(regret['questions'], 'question')} about {count(regret['pictures'], 'image')}"
    if regret["unjudged"]:
        least = number(100 * regret["regret_at_least"], digits=2)
        seen = (
            f"On {part}, {regret['unjudged']} answers differ from the reference option's and were "
            f"not judged: regret is between {least} % and "
            f"{number(100 * regret['regret'], digits=2)} %"
        )
    else:
        seen = f"{number(100 * regret['regret'], digits=2)} % regret on {part}"
    seen = (
        f"{seen}, at most {number(100 * regret['upper_limit'], digits=2)} % with confidence "
        f"{plain(regret['confidence'])}"
    )
    if regret["max_loss"] is not None:
        seen = seen.replace("regret", "net loss")
        told = f"Net loss of at most {number(100 * regret['max_loss'])} %"
    elif regret["max_regret"] is not None:
        told = f"Regret of at most {number(100 * regret['max_regret'])} %"
    else:
        return f"The policy has no guarantee: {seen}."
    text = f"{told}: {regret['verdict']}. {seen}"
    if regret["verdict"] == "violated":
        return f"{text}, and at least {number(100 * regret['lower_limit'], digits=2)} %."
    if regret["verdict"] == "not enough evidence":
        needed = regret["pictures_needed"]
        above = "give right answers (--answers)" if regret["unjudged"] else "it is above the target"
        more = f"about {needed} such images are needed" if needed else above
        return f"{text}; {more}."
    return f"{text}."
