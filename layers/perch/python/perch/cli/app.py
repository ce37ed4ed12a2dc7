"""The `perch` command: its options, its commands, and the promise that a failure is a sentence and not a traceback.

Exit codes: 0 done, 1 refused or failed (the sentence is on standard error), 2 not understood, 130 interrupted.
Each command lives in a file of its own and imports what it needs when it runs, so that help is quick; `main` is where
the process begins.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from perch.cli import (
    clock,
    experiments,
    export,
    inspect,
    keys,
    ledger,
    logs,
    models,
    plan,
    predict,
    push,
    replay,
    rollouts,
    sign,
    simulate,
    status,
    up,
    verify,
)
from perch.cli.context import Context, Options
from perch.cli.errors import explain
from perch.cli.running import find_running
from perch.cli.show import say


class Sentences(TyperGroup):
    """The group of all commands; what goes wrong in one ends as a sentence and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (TyperException, typer.Exit, typer.Abort, EOFError, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            say(f"perch: {explain(error)}{_hint(ctx.obj, error)}")
            raise typer.Exit(1) from error


app = typer.Typer(
    name="perch",
    cls=Sentences,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
    help="Deploy machine-learning models on AWS: verified, canaried, watched, and rolled back by itself.",
)


def _hint(place: Context | None, error: Exception) -> str:
    """Whoever has no AWS at hand while a local cloud is running has probably forgotten an option."""
    lost = type(error).__name__ in ("NoRegionError", "NoCredentialsError", "EndpointConnectionError")
    if lost and place and not place.options.local and find_running():
        return " (a local cloud is running: `perch --local` uses it)"
    return ""


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("perch"))
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    *,
    local: Annotated[
        bool, typer.Option("--local", envvar="PERCH_LOCAL", help="Work on the local cloud that `perch up` runs.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(envvar="PERCH_NAME", help="Name of the deployment [default: of perch.toml here, else perch]."),
    ] = None,
    region: Annotated[str | None, typer.Option(help="AWS region, instead of the configured one.")] = None,
    profile: Annotated[str | None, typer.Option(help="AWS profile, instead of the configured one.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback when something fails.")] = False,
    version: Annotated[  # noqa: ARG001 - acts by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before the command."""
    ctx.obj = Context(Options(local=local, name=name, region=region, profile=profile, debug=debug))


@app.command()
def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the local cloud running at the end.")] = False,
) -> None:
    """Show the whole loop on this machine.

    Four versions of a model go out, one after the other: two take over, two are taken back.
    """
    from perch.cli.demo import demo as run

    raise typer.Exit(run(keep=keep))


app.command()(up.up)
app.command()(push.push)
app.command()(inspect.inspect)
app.command()(export.export)
app.command()(sign.sign)
app.command()(verify.verify)
app.add_typer(keys.app, name="keys")
app.command()(status.status)
app.command()(predict.predict)
app.command()(plan.plan)
app.command()(simulate.simulate)
app.add_typer(rollouts.app, name="rollouts")
app.command()(rollouts.rollback)
app.command()(replay.replay)
app.add_typer(experiments.app, name="experiments")
app.command()(models.models)
app.command()(ledger.ledger)
app.command()(logs.logs)
app.command()(clock.clock)
