"""`perch experiments`: start an A/B/n test of model versions, see how it stands, ramp it, end it with a winner."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perch.cli.context import Context
from perch.cli.durations import parse_span
from perch.cli.show import Json, emit, line, say, table, tell, when
from perch.domain.codec import dump
from perch.domain.errors import Invalid, NotFound

if TYPE_CHECKING:
    from perch.app.change_experiment import Standing

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Test model versions against each other.")

Endpoint = Annotated[str, typer.Argument(help="Name of an endpoint.")]
Actor = Annotated[str | None, typer.Option(help="Who does it, for the ledger [default: you].")]
Reason = Annotated[str, typer.Option(help="Why, for the ledger.")]

_VARIANT = re.compile(r"(?P<name>[^=]+)=(?P<version>[^:]+)(:(?P<share>.+))?")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*(%?)")


@app.command()
def start(
    ctx: typer.Context,
    endpoint: Endpoint,
    variant: Annotated[
        list[str],
        typer.Option(help="NAME=VERSION of the champion first, then NAME=VERSION:SHARE of each challenger; repeat it."),
    ],
    reason: Reason,
    reward: Annotated[str, typer.Option(help="What is rewarded, for people.")] = "reward",
    alpha: Annotated[float, typer.Option(help="Probability of any false claim, at most.")] = 0.05,
    bandit: Annotated[bool, typer.Option("--bandit", help="Move the shares to what is probably best.")] = False,
    floor: Annotated[str, typer.Option(help="The least share that a bandit leaves a variant.")] = "5%",
    every: Annotated[str, typer.Option(help="How often a bandit may move the shares.")] = "1h",
    salt: Annotated[
        str | None, typer.Option(help="Salt of an earlier experiment, to deal users as it did [default: a new one].")
    ] = None,
    actor: Actor = None,
    as_json: Json = False,
) -> None:
    """Start an experiment with registered versions.

    The first variant is the champion, which serves the endpoint now; the challengers get their shares of the users.
    """
    from perch.app.change_experiment import start_experiment

    place: Context = ctx.obj
    versions, shares = variants_of(variant)
    said = start_experiment(
        place.world,
        endpoint,
        versions,
        shares,
        reason=reason,
        actor=actor or place.actor(),
        now=place.now(),
        reward=reward,
        alpha=alpha,
        bandit=bandit,
        floor=share_of(floor),
        bandit_every_s=round(parse_span(every).total_seconds()),
        **({"salt": salt} if salt else {}),
    )
    _done(place, endpoint, said, as_json=as_json)


@app.command(name="list")
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """List the experiments that run."""
    place: Context = ctx.obj
    states = (place.world.registry.endpoint(policy.name) for policy in place.policies(None))
    found = [state.experiment for state in states if state.experiment]
    if as_json:
        emit(found)
        return
    table(
        ("experiment", "endpoint", "split", "kind", "reward", "started (UTC)", "by"),
        (
            (
                e.id,
                e.endpoint,
                ", ".join(f"{v.name} {v.pointer.version} {e.share(v.name):.2%}" for v in e.variants),
                "bandit" if e.bandit else "fixed shares",
                e.reward,
                when(e.started_at),
                e.actor,
            )
            for e in found
        ),
        empty="no experiment runs; `perch experiments start` starts one",
    )


@app.command()
def show(ctx: typer.Context, endpoint: Endpoint, as_json: Json = False) -> None:
    """Show how an experiment stands.

    Split, rewards, lift, and what may be claimed of it at this moment.
    """
    from perch.app.change_experiment import standing

    place: Context = ctx.obj
    place.settings.endpoint(endpoint)
    state = place.world.registry.endpoint(endpoint)
    if state.experiment is None:
        raise NotFound(f"no experiment runs on {endpoint}; `perch experiments list` lists those that do")
    found = standing(place.world, state)
    if as_json:
        emit(_document(found))
        return
    experiment = found.experiment
    kind = f"bandit, floor {experiment.floor:.2%}" if experiment.bandit else "fixed shares"
    line(f"{experiment.id} on {endpoint}: {experiment.reward}, alpha {experiment.alpha:g}, {kind}", "bold")
    table(
        ("variant", "version", "share", "served", "users", "rewards", "lift", "E", "p", "decision"),
        _rows(found),
        empty="",
    )
    for variant in experiment.variants:
        if variant.braked:
            say(f"{variant.name} was braked: {variant.braked}")


@app.command()
def ramp(
    ctx: typer.Context,
    endpoint: Endpoint,
    variant: Annotated[list[str], typer.Option(help="NAME=SHARE of a challenger; repeat it.")],
    reason: Reason,
    actor: Actor = None,
    as_json: Json = False,
) -> None:
    """Give challengers other shares of the users.

    Who met a challenger stays with it while shares grow.
    """
    from perch.app.change_experiment import ramp_experiment

    place: Context = ctx.obj
    shares = {}
    for text in variant:
        name, equals, share = text.partition("=")
        if not equals:
            raise Invalid(f"{text!r} is not NAME=SHARE, such as challenger=25%")
        shares[name] = share_of(share)
    who = actor or place.actor()
    said = ramp_experiment(place.world, endpoint, shares, reason=reason, actor=who, now=place.now())
    _done(place, endpoint, said, as_json=as_json)


@app.command()
def end(
    ctx: typer.Context,
    endpoint: Endpoint,
    reason: Reason,
    winner: Annotated[
        str | None, typer.Option(help="The variant that shall serve everybody [default: none, the champion stays].")
    ] = None,
    actor: Actor = None,
    as_json: Json = False,
) -> None:
    """End an experiment.

    A winner becomes the next rollout, by the endpoint's own strategy; without one the champion goes on alone.
    """
    from perch.app.change_experiment import end_experiment

    place: Context = ctx.obj
    who = actor or place.actor()
    said = end_experiment(place.world, endpoint, winner=winner, reason=reason, actor=who, now=place.now())
    _done(place, endpoint, said, as_json=as_json)


def variants_of(texts: list[str]) -> tuple[dict[str, str], dict[str, float]]:
    """Read NAME=VERSION[:SHARE] of each variant: versions of all, shares of the challengers. Raises Invalid."""
    versions: dict[str, str] = {}
    shares: dict[str, float] = {}
    for i, text in enumerate(texts):
        found = _VARIANT.fullmatch(text)
        if found is None or bool(found["share"]) != (i > 0):
            wanted = "challenger=v3:10%" if i else "champion=v2 (the champion has what the others leave)"
            raise Invalid(f"{text!r} is not how variant {i + 1} is written: {wanted}")
        if found["name"] in versions:
            raise Invalid(f"two variants are called {found['name']!r}")
        versions[found["name"]] = found["version"]
        if found["share"]:
            shares[found["name"]] = share_of(found["share"])
    return versions, shares


def share_of(text: str) -> float:
    """Read a share: `10%` or `0.1`. Raises Invalid."""
    found = _SHARE.fullmatch(text.strip())
    share = round(float(found[1]) / (100 if found[2] else 1), 10) if found else -1.0
    if not 0 <= share <= 1:
        raise Invalid(f"{text!r} is not a share; write 10% or 0.1")
    return share


def _document(found: Standing) -> dict[str, Any]:
    experiment = found.experiment
    known = {finding.variant: finding for finding in found.findings}
    document: dict[str, Any] = dump(experiment)
    return document | {
        "variants": [
            {
                "name": v.name,
                "version": v.pointer.version,
                "share": experiment.share(v.name),
                "served": found.served[v.name],
                "users": found.tally.users[i],
                "rewards": found.tally.rewards[i],
                "braked": v.braked,
                **({k: x for k, x in dump(known[v.name]).items() if k in _SHOWN} if v.name in known else {}),
            }
            for i, v in enumerate(experiment.variants)
        ],
    }


_SHOWN = ("log_e", "p", "lift", "decision", "reason")


def _rows(found: Standing) -> list[tuple[object, ...]]:
    from perch.domain.significance import spelt

    known = {finding.variant: finding for finding in found.findings}
    rows: list[tuple[object, ...]] = []
    for i, variant in enumerate(found.experiment.variants):
        finding = known.get(variant.name)
        lift = "" if finding is None or finding.lift is None else f"{finding.lift:+.1%}"
        e, p, decision = (
            (spelt(finding.log_e), f"{finding.p:.3g}", finding.decision) if finding else ("", "", "champion")
        )
        rows.append(
            (
                variant.name,
                variant.pointer.version,
                f"{found.experiment.share(variant.name):.2%}",
                f"{found.served[variant.name]:.2%}",
                found.tally.users[i],
                f"{found.tally.rewards[i]:,.6g}",
                lift,
                e,
                p,
                "braked" if variant.braked else decision,
            )
        )
    return rows


def _done(place: Context, endpoint: str, sentence: str, *, as_json: bool) -> None:
    taken_up = place.nudge()
    if as_json:
        emit({"endpoint": endpoint, "reason": sentence})
        say(taken_up)
    else:
        tell(f"{sentence}; {taken_up}")
