"""Where a command works: the local cloud or an AWS account, and what is deployed there.

Nothing is asked of AWS before a command needs it: each property is made on first use and kept.

    --local / PERCH_LOCAL ──► cloud.json ──► endpoint and credentials of this process ┐
    --profile, --region, ordinary configuration ──────────────────────────────────────┴► clients
        ──► outputs of the stacks <name>-store, … ──► table, bucket, API
        ──► GET /models of <name>-describe-api ─────► endpoints                ──► world (the use cases' services)
"""

from __future__ import annotations

import getpass
import json
import os
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perch.cli.running import Running, find_running, require_running
from perch.domain.codec import iso
from perch.domain.errors import Invalid, NotFound
from perch.domain.policy import LARGEST_MB, EndpointPolicy, RolloutPolicy, Settings, SigningPolicy

if TYPE_CHECKING:
    import boto3

    from perch.app.world import World
    from perch.aws.clients import Clients

SETTINGS = Path("perch.toml")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options before the command."""

    local: bool = False
    name: str | None = None
    region: str | None = None
    profile: str | None = None
    debug: bool = False


class Context:
    """One deployment, as the options name it."""

    def __init__(self, options: Options) -> None:
        self.options = options

    @cached_property
    def name(self) -> str:
        """The deployment's name: `--name`, else `name` in this folder's perch.toml, else "perch"."""
        return self.options.name or _name_in(SETTINGS) or "perch"

    @cached_property
    def cloud(self) -> Running | None:
        """The running local cloud; None when the command works on AWS."""
        return require_running() if self.options.local else None

    @cached_property
    def session(self) -> boto3.Session:
        """A boto3 session that reaches the place. For the local cloud the process's own AWS variables are replaced."""
        import boto3

        if self.cloud is None:
            return boto3.Session(profile_name=self.options.profile, region_name=self.options.region)
        enter(self.cloud)
        return boto3.Session()

    @cached_property
    def clients(self) -> Clients:
        """The services."""
        from perch.aws.clients import Clients

        return Clients(self.session)

    @property
    def place(self) -> str:
        """Say where this is."""
        return f"local cloud at {self.cloud.api_url}" if self.cloud else f"AWS {self.session.region_name}"

    def now(self) -> datetime:
        """Return the time there, which rollouts go by: virtual on the local cloud, and not this machine's on AWS."""
        return self.cloud.now() if self.cloud else datetime.now(UTC) + self._ahead

    @cached_property
    def _ahead(self) -> timedelta:
        """How far the clock of AWS is ahead of this machine's, by the date of an answer that needs no permission."""
        answer = self.session.client("sts").get_caller_identity()
        told = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        return parsedate_to_datetime(told) - datetime.now(UTC) if told else timedelta(0)

    # -- what is deployed -----------------------------------------------------------------------------------------

    def output(self, stack: str, output: str) -> str:
        """Return one output of the stack `<name>-<stack>`. Raises NotFound if it is not deployed."""
        value = self._outputs(stack).get(output)
        if value is None:
            raise NotFound(f"stack {self.name}-{stack} has no output {output}; {self._deploy()}")
        return value

    @cached_property
    def settings(self) -> Settings:
        """The declared endpoints, as `GET /models` tells them: of their policies, what commands go by."""
        from botocore.exceptions import ClientError  # here, not above: the SDK takes a while

        from perch.aws.trouble import code_of

        event = {"requestContext": {"http": {"method": "GET", "path": "/models"}}}
        function = f"{self.name}-describe-api"
        try:
            answer = self.clients.lambda_.invoke(FunctionName=function, Payload=json.dumps(event).encode())
        except ClientError as error:
            if code_of(error) != "ResourceNotFoundException":
                raise
            raise NotFound(f"there is no function {function} on {self.place}; {self._deploy()}") from error
        document = json.loads(answer["Payload"].read() or b"null")
        if "FunctionError" in answer or document.get("statusCode") != 200:
            raise Invalid(
                f"{function} did not say which endpoints there are: {document}; see `perch logs describe-api`"
            )
        told = json.loads(document["body"])
        signing = SigningPolicy(required=told.get("signing") == "required", keys=told.get("keys", {}))
        return Settings(name=self.name, endpoints=tuple(map(_told, told["endpoints"])), signing=signing)

    @cached_property
    def world(self) -> World:
        """What the use cases need."""
        from perch.app.world import make_world

        return make_world(
            self.clients,
            self.settings,
            table=self.output("store", "RegistryTable"),
            bucket=self.output("store", "StoreBucket"),
        )

    def policies(self, endpoint: str | None) -> tuple[EndpointPolicy, ...]:
        """Return one endpoint's policy, or all. Raises NotFound, naming those that exist."""
        return (self.settings.endpoint(endpoint),) if endpoint else self.settings.endpoints

    # -- acting ---------------------------------------------------------------------------------------------------

    def actor(self) -> str:
        """Say who acts: the user of this machine, else the caller as AWS knows it."""
        try:
            return os.environ.get("USER") or getpass.getuser()
        except (KeyError, OSError):  # a container without a user
            return str(self.session.client("sts").get_caller_identity()["Arn"])

    def nudge(self) -> str:
        """Wake the rollout driver instead of waiting for its schedule; say what comes of it."""
        from botocore.exceptions import ClientError

        try:
            self.clients.lambda_.invoke(
                FunctionName=f"{self.name}-drive-rollouts",
                InvocationType="Event",
                Payload=json.dumps({"time": iso(self.now())}).encode(),
            )
        except ClientError:  # reading and deciding need other permissions than invoking
            return "it takes effect at the next tick of the rollout driver"
        return "the rollout driver was woken to take it up"

    def _outputs(self, stack: str) -> dict[str, str]:
        return self._all_outputs(f"{self.name}-{stack}")

    @cache  # noqa: B019 - one context lives as long as the process
    def _all_outputs(self, stack: str) -> dict[str, str]:
        from botocore.exceptions import ClientError

        try:
            found: Any = self.clients.cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
        except ClientError as error:
            if "does not exist" not in error.response["Error"].get("Message", ""):
                raise
            raise NotFound(f"there is no stack {stack} on {self.place}; {self._deploy()}") from error
        return {o["OutputKey"]: o["OutputValue"] for o in found.get("Outputs", [])}

    def _deploy(self) -> str:
        advice = "deploy first: npx cdk deploy --all (or name the deployment with `perch --name`)"
        if self.cloud is None and find_running():
            advice += "; a local cloud is running, which `perch --local` uses"
        return advice


def enter(cloud: Running) -> None:
    """Lead every AWS call of this process to a local cloud, whatever account its environment named before."""
    from perch.local.access import local_environment

    for name in [n for n in os.environ if n.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(local_environment(cloud.api_url))


def _told(endpoint: dict[str, Any]) -> EndpointPolicy:
    """Read what `GET /models` tells of an endpoint; one that was deployed long ago tells less."""
    way_back_s = endpoint.get("way_back_s", RolloutPolicy.way_back_s)
    return EndpointPolicy(
        name=endpoint["name"],
        model=endpoint["model"],
        runtime=endpoint["runtime"],
        memory_mb=endpoint["memory_mb"],
        max_artifact_mb=endpoint.get("max_artifact_mb", LARGEST_MB),
        allow=tuple(endpoint.get("allow", ())),
        rollout=RolloutPolicy(way_back_s=way_back_s),
    )


def _name_in(settings: Path) -> str | None:
    """Return the name that a settings file declares, if there is such a file."""
    if not settings.is_file():
        return None
    try:
        name = tomllib.loads(settings.read_text("utf-8")).get("name")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(
            f"{settings} is not TOML ({error}); mend it, or name the deployment with `perch --name`"
        ) from error
    return name if isinstance(name, str) else None
