"""What a settings file declares, read by the same checks that a deployment makes.

Those checks belong to the project (`cdk/settings.py` beside its app.py), and the package never imports a project. So a
process of its own reads the file there and writes the canonical document (docs/contracts.md), which is what deployed
functions get as well. A `.json` file is taken as such a document already.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from perch.domain.errors import Invalid, NotFound
from perch.domain.policy import EndpointPolicy, Settings, load_settings

_READ = """
import sys
from pathlib import Path
from cdk.settings import SettingsError, load
try:
    sys.stdout.write(load(Path(sys.argv[1])).as_endpoints_json())
except SettingsError as wrong:
    sys.exit(str(wrong))
"""
_TIMEOUT_S = 30


def read_settings(path: Path) -> Settings:
    """Read a settings file.

    Raises:
        NotFound: there is no such file, or no project beside it or here that could check it.
        Invalid: the project's checks refuse it; the message names every mistake.
    """
    if not path.is_file():
        raise NotFound(f"there is no file {path}; name another with --policy")
    if path.suffix == ".json":
        return _load(path, path.read_text("utf-8"))
    done = subprocess.run(  # noqa: S603 - our own interpreter, on the project that the user stands in
        [sys.executable, "-c", _READ, str(path.resolve())],
        cwd=_project(path),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise Invalid(done.stderr.strip() or f"{path} cannot be read")
    return _load(path, done.stdout)


def one_endpoint(settings: Settings, name: str | None) -> EndpointPolicy:
    """Return the endpoint of that name; without a name, the only one. Raises NotFound or Invalid, naming what is."""
    if name or not settings.endpoints:
        return settings.endpoint(name or "")
    if len(settings.endpoints) > 1:
        raise Invalid(f"say which endpoint: {', '.join(endpoint.name for endpoint in settings.endpoints)}")
    return settings.endpoints[0]


def _project(path: Path) -> Path:
    """Find the folder that holds the project's checks: around the file, else around the current folder."""
    for start in (path.resolve().parent, Path.cwd()):
        for folder in (start, *start.parents):
            if (folder / "cdk" / "settings.py").is_file():
                return folder
    raise NotFound(f"no project (a folder with cdk/settings.py) lies around {path} or here; go to yours and try again")


def _load(path: Path, text: str) -> Settings:
    try:
        return load_settings(text)
    except (TypeError, ValueError, KeyError) as error:
        raise Invalid(f"{path} does not hold the settings of a deployment: {error}") from error
