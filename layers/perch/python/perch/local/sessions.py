"""boto3 sessions that read the descriptions of AWS's services once a process.

Each session has a loader of its own, which reads them again for every session whose clients need them: S3 in 60 ms, the
list of all endpoints in 40.
"""

from __future__ import annotations

from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.loaders import Loader

_LOADER = Loader()


def make_session(*, config: Config | None = None, **how: Any) -> boto3.Session:
    """Return a new session.

    Args:
        config: of all its clients, unless they are given another.
        how: what `boto3.Session` takes.
    """
    session = botocore.session.get_session()
    session.register_component("data_loader", _LOADER)
    if config is not None:
        session.set_default_client_config(config)
    return boto3.Session(botocore_session=session, **how)
