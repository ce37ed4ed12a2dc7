"""`perch up`: the whole cloud on this machine, until Ctrl-C.

    ports free? ─► synthesize app.py ─► start the local cloud ─► deploy the templates ─► let time run ─► wait

With `--empty` nothing is synthesized or deployed: the real CDK tool does that, led here by `.perch/local/env.sh`.
"""

from __future__ import annotations

import logging
import shlex
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perch.cli.context import Context
from perch.cli.running import STATE, find_running
from perch.cli.show import Json, emit, progress, say
from perch.domain.errors import Invalid, Refused

if TYPE_CHECKING:
    from perch.local.cloud import LocalCloud

_ENV = STATE / "env.sh"


def up(
    ctx: typer.Context,
    empty: Annotated[bool, typer.Option("--empty", help="Deploy nothing: for the real `npx cdk deploy`.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of the AWS API; 0: any free one.")] = 5000,
    gateway_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of the deployed HTTP API; 0: any free one.")
    ] = 8080,
    speed: Annotated[float, typer.Option(help="Virtual seconds that pass in a real one.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Decides which requests a weighted alias sends where.")] = 0,
    settings: Annotated[Path | None, typer.Option(help="Settings file [default: perch.toml of the app].")] = None,
    app: Annotated[Path, typer.Option(help="Folder that holds app.py.")] = Path(),
    as_json: Json = False,
) -> None:
    """Run a local cloud with this app deployed on it.

    It runs in the foreground until Ctrl-C; everything in it goes with it.
    """
    place: Context = ctx.obj
    _check(empty=empty, ports={"--port": port, "--gateway-port": gateway_port}, speed=speed, settings=settings, app=app)
    _quiet(debug=place.options.debug)
    try:
        with _ending_on_sigterm():
            assembly = None if empty else _synthesize(app, settings)
            with progress("starting the local cloud"):
                from perch.local.cloud import CloudOptions, LocalCloud

                options = CloudOptions(api_port=port, gateway_port=gateway_port, speed=speed, seed=seed, state=STATE)
                cloud = LocalCloud(options)
                cloud.start()
            try:
                _serve(cloud, assembly, app, as_json=as_json)
            finally:
                _ENV.unlink(missing_ok=True)
                cloud.stop()
    except KeyboardInterrupt:
        say("stopped")


def _serve(cloud: LocalCloud, assembly: Path | None, app: Path, *, as_json: bool) -> None:
    name = None
    if assembly is not None:
        with progress("deploying") as tell:
            name = _name(cloud.deploy(assembly, tell).outputs)
    cloud.run()
    environment = write_environment(cloud)
    told = {"api_url": cloud.api_url, "gateway_url": cloud.gateway_url, "control_url": cloud.control_url, "name": name}
    if as_json:
        emit({**told, "environment": environment})
    else:
        typer.echo("\n".join(_welcome(cloud, name, app)))
    threading.Event().wait()  # ends with KeyboardInterrupt


def write_environment(cloud: LocalCloud) -> dict[str, str]:
    """Write `env.sh`, which leads every AWS tool of a shell here; return its variables."""
    from perch.local.deploy.cli import cdk_cli_environment
    from perch.local.deploy.synthesis import node

    variables = cdk_cli_environment(cloud.api_url, image_store=cloud.image_store)
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items() if name != "PATH"]
    lines.append(f'export PATH={shlex.quote(str(node().parent))}:"$PATH"')  # the CDK tool's Node
    _ENV.parent.mkdir(parents=True, exist_ok=True)
    _ENV.write_text("unset AWS_PROFILE AWS_SESSION_TOKEN\n" + "\n".join(lines) + "\n")
    return variables


def _welcome(cloud: LocalCloud, name: str | None, app: Path) -> list[str]:
    where = [
        f"AWS API   {cloud.api_url}",
        f"HTTP API  {cloud.gateway_url}",
        f"time      {cloud.options.speed:g} virtual seconds a second (`perch clock`)",
        "",
    ]
    if name is None:
        tool = app / "node_modules" / ".bin" / "cdk"
        install = [] if tool.exists() else ["  npm ci"]
        return [
            *where,
            "Nothing is deployed. In another terminal:",
            f"  cd {shlex.quote(str(app.resolve()))}",
            f"  . {shlex.quote(str(_ENV.resolve()))}",
            *install,
            "  npx cdk bootstrap",
            "  npx cdk deploy --all --require-approval never",
            "",
            "Ctrl-C stops it.",
        ]
    perch = "perch --local" if name == "perch" else f"perch --local --name {name}"
    return [
        *where,
        "Try in another terminal:",
        f"  {perch} status",
        f"  {perch} push model.onnx --model MODEL --version v1",
        f"  {perch} logs drive-rollouts --follow",
        "",
        f"`. {_ENV}` leads every other AWS tool here. Ctrl-C stops it.",
    ]


def _check(*, empty: bool, ports: Mapping[str, int], speed: float, settings: Path | None, app: Path) -> None:
    """Refuse before anything is started."""
    if not 0 < speed < 1e6:
        raise Invalid(f"--speed {speed:g} cannot be; give virtual seconds a real second, above 0 and below 1,000,000")
    if settings and not settings.is_file():
        raise Invalid(f"--settings {settings}: there is no such file")
    if not empty and not (app / "app.py").is_file():
        raise Invalid(f"there is no app.py in {app.resolve()}; name its folder with --app, or start with --empty")
    if other := find_running():
        raise Refused(
            f"a local cloud runs here already (process {other.pid}, AWS API {other.api_url}, HTTP API "
            f"{other.gateway_url}); use it with `perch --local`, or stop it with Ctrl-C in its terminal"
        )
    for option, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise Refused(f"port {port} cannot be had ({error.strerror}); choose another with {option}") from error


def _synthesize(app: Path, settings: Path | None) -> Path:
    from perch.local.deploy.synthesis import synthesize

    environment = {"PERCH_SETTINGS": str(settings.resolve())} if settings else {}
    with progress("synthesizing app.py (the first time it also builds the layers)"):
        return synthesize(app.resolve(), (STATE / "cdk.out").resolve(), environment=environment)


def _name(outputs: Mapping[str, Any]) -> str | None:
    """Return the deployment's name from the names of its stacks."""
    return next((stack.removesuffix("-store") for stack in outputs if stack.endswith("-store")), None)


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _OneLine(logging.Formatter):
    """A warning of the local cloud is a line; what was raised is named at its end."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return f"  {ei[0].__name__}: {ei[1]}"


def _quiet(*, debug: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter() if debug else _OneLine("perch: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
