"""Settings: `perch.toml` as frozen, checked values.

`load` reads the file and checks all of it before anything is built; a mistake raises one `SettingsError` that lists
every problem, each with the key it is about and what would be right. `Settings.as_endpoints_json` writes the canonical
document that is deployed beside the functions (docs/contracts.md): times in seconds, weights as fractions, a linear
rollout already expanded into its steps. What the functions make of that document is theirs to say.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cdk.reading import Reader, WrongValueError, duration, flag, one_of, proportion, text, whole
from cdk.rollout_settings import DAY, HOUR, MINUTE, Guards, Rollout, guards, rollout
from cdk.signing_settings import Signing, allow, signing
from perch.domain.formats import RUNTIMES, formats_of
from perch.domain.memory import RUNTIME_MB, held_times, needed_mb
from perch.domain.policy import LARGEST_MB

# A function of an endpoint is called `<name>-<endpoint>`, so an endpoint cannot take the name of a control function.
CONTROL_FUNCTIONS = (
    "register-model",
    "drive-rollouts",
    "roll-back",
    "check-health",
    "replay-requests",
    "describe-api",
    "record-rewards",
)

_RATE = "an EventBridge schedule counts in minutes"
_NAME = text(
    r"[a-z][a-z0-9-]{0,18}[a-z0-9]|[a-z]",
    "1 to 20 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen",
)
_ENDPOINT = text(r"[a-z][a-z0-9-]{0,39}", "1 to 40 lower-case letters, digits and hyphens, beginning with a letter")
_CACHE_URL = text(
    r"rediss?://\S+|\{\{resolve:(secretsmanager|ssm|ssm-secure):[^\s{}]+\}\}",
    "the address of a Valkey or Redis server, rediss://user:password@host:6379/0, or CloudFormation's reference to a "
    "secret that holds it, {{resolve:secretsmanager:NAME}}",
)
_MODEL = text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "1 to 64 letters, digits, '.', '_' and '-', not beginning with one")


class SettingsError(Exception):
    """The settings cannot be used; `problems` has one sentence for each thing that is wrong."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        """Keep the parts, and make of them one message that names the file on every line."""
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))
        self.path = path
        self.problems = problems


@dataclass(frozen=True, kw_only=True)
class Cache:
    """The prediction cache of an endpoint: see `perch.domain.policy.CachePolicy`, which reads it."""

    ttl_s: int
    size_mb: int
    url: str = ""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One endpoint: the model it serves, on what, and how its revisions change.

    `capture` is the share of requests that the predictor writes to its log as asked and answered; `allow` names formats
    that can run code, which it takes when a trusted key signed them. With `snapstart`, Lambda starts its processes from
    a snapshot of the loaded model.
    """

    name: str
    model: str
    runtime: str
    memory_mb: int = 1024
    timeout_s: int = 10
    snapstart: bool = False
    approval: str = "auto"
    health_check_s: int = 5 * MINUTE
    max_artifact_mb: int = 200
    capture: float = 0.0
    cache: Cache | None = None
    allow: tuple[str, ...] = ()
    rollout: Rollout = field(default_factory=Rollout)
    guards: Guards = field(default_factory=Guards)


@dataclass(frozen=True, kw_only=True)
class Api:
    """The front door. `auth` is `iam` (signed requests) or `none`; the throttle counts requests of the whole API."""

    auth: str = "iam"
    throttle_rate: int = 1_000
    throttle_burst: int = 2_000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that is declared."""

    name: str
    endpoints: tuple[Endpoint, ...]
    tick_s: int = MINUTE
    architecture: str = "arm64"
    log_days: int = 30
    torch_index: str | None = None
    api: Api = field(default_factory=Api)
    signing: Signing = field(default_factory=Signing)

    def as_endpoints_json(self) -> str:
        """Write the canonical document that the functions read; the same settings always give the same text."""
        document = {
            "name": self.name,
            "signing": self.signing.as_document(),
            "endpoints": [asdict(endpoint) for endpoint in self.endpoints],
        }
        return json.dumps(document, indent=2) + "\n"


def load(path: Path) -> Settings:
    """Read and check a settings file.

    Raises:
        SettingsError: the file is missing, is not TOML, or anything in it is wrong; all problems at once.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(path, ["there is no such file; name another one with -c settings=FILE"]) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(path, [f"cannot be read as TOML: {error}"]) from error
    return parse(document, path)


def parse(document: Mapping[str, object], path: Path) -> Settings:
    """Check a document that was already read from `path`. Raises SettingsError."""
    problems: list[str] = []
    reader = Reader(document, "", problems)
    trusted = signing(reader.inner("signing"), path.parent)
    settings = Settings(
        name=reader.value("name", _NAME, "perch"),
        tick_s=reader.value("tick", duration(MINUTE, HOUR, whole_minutes=_RATE), MINUTE),
        architecture=reader.value("architecture", one_of("arm64", "x86_64"), "arm64"),
        log_days=reader.value("log_days", _log_days, 30),
        torch_index=_torch_index(reader.inner("image")),
        api=_api(reader.inner("api")),
        signing=trusted,
        endpoints=_endpoints(reader.inner("endpoints"), trusted),
    )
    reader.close()
    if problems:
        raise SettingsError(path, problems)
    return settings


def _api(reader: Reader) -> Api:
    api = Api(
        auth=reader.value("auth", one_of("iam", "none"), Api.auth),
        throttle_rate=reader.value("throttle_rate", whole(1, 100_000, "of requests a second"), Api.throttle_rate),
        throttle_burst=reader.value("throttle_burst", whole(1, 100_000, "of requests"), Api.throttle_burst),
    )
    reader.close()
    return api


def _torch_index(reader: Reader) -> str | None:
    check = text(r"https://\S+", "the https address of a package index")
    index = reader.value("torch_index", check, "") or None
    reader.close()
    return index


def _endpoints(reader: Reader, signing: Signing) -> tuple[Endpoint, ...]:
    if not reader.table:
        reader.problems.append("endpoints: declare at least one, as [endpoints.<name>] with its runtime")
    return tuple(_endpoint(name, reader, signing) for name in reader.table)


def _endpoint(name: str, endpoints: Reader, signing: Signing) -> Endpoint:
    reader = endpoints.inner(name)
    endpoints.value(name, lambda _: _endpoint_name(name), name)
    # An HTTP API waits 30 seconds at most, so a predictor that may take longer would only be billed for it.
    timeout_s = reader.value("timeout_s", whole(1, 30, "of seconds"), Endpoint.timeout_s)
    known = len(reader.problems)
    runtime = reader.required("runtime", one_of(*RUNTIMES), "onnx")
    endpoint = Endpoint(
        name=name,
        model=reader.value("model", _MODEL, name),
        runtime=runtime,
        memory_mb=reader.value("memory_mb", whole(128, 10_240, "of megabytes"), Endpoint.memory_mb),
        timeout_s=timeout_s,
        snapstart=reader.value("snapstart", flag, Endpoint.snapstart),
        approval=reader.value("approval", one_of("auto", "manual"), Endpoint.approval),
        health_check_s=reader.value(
            "health_check", duration(MINUTE, DAY, whole_minutes=_RATE), Endpoint.health_check_s
        ),
        # An artifact is read into memory, and never written to disk.
        max_artifact_mb=reader.value("max_artifact_mb", whole(1, LARGEST_MB, "of megabytes"), Endpoint.max_artifact_mb),
        capture=reader.value("capture", proportion, Endpoint.capture),
        cache=_cache(reader.inner("cache")) if "cache" in reader.table else None,
        allow=reader.value("allow", allow(runtime, signing), ()),
        rollout=rollout(reader.inner("rollout")),
        guards=guards(reader.inner("guards"), timeout_s),
    )
    if any(step.weight == 0 for step in endpoint.rollout.steps) and not endpoint.capture:
        reader.complain("capture", 'a shadow replays captured requests; say how many are captured, as capture = "10%"')
    cache_mb = endpoint.cache.size_mb if endpoint.cache else 0
    # Of the formats that the runtime loads, the one that it is for; others may take more, and then their probes say so.
    suits = next(iter(formats_of(endpoint.runtime)), "")
    needed = math.ceil(needed_mb([(suits, endpoint.max_artifact_mb)])) + cache_mb
    if len(reader.problems) == known and endpoint.memory_mb < needed:
        reader.complain(
            "memory_mb",
            f"{endpoint.memory_mb} MB cannot hold an artifact of max_artifact_mb = {endpoint.max_artifact_mb}, which "
            f"takes {held_times(suits):g} times its size and {RUNTIME_MB} MB for the runtime"
            f"{f', and {cache_mb} MB of cache' if cache_mb else ''}; raise it to {needed} or more, or "
            "lower max_artifact_mb",
        )
    reader.close()
    return endpoint


def _cache(reader: Reader) -> Cache:
    cache = Cache(
        ttl_s=reader.required("ttl", duration(1, DAY), MINUTE),
        size_mb=reader.value("size_mb", whole(1, 4_096, "of megabytes"), 64),
        url=reader.value("url", _CACHE_URL, ""),
    )
    reader.close()
    return cache


def _endpoint_name(name: str) -> str:
    if name in CONTROL_FUNCTIONS:
        raise WrongValueError("is the name of one of Perch's own functions; choose another")
    return _ENDPOINT(name)


_RETENTION = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)


def _log_days(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value not in _RETENTION:
        raise WrongValueError(
            f"{value!r} does not fit; CloudWatch Logs keeps for one of {', '.join(map(str, _RETENTION))} days"
        )
    return value
