"""SnapStart: what has to be made anew when Lambda wakes many environments from one snapshot of a loaded predictor.

    init: load, verify, warm ─► snapshot (at publishing) ─► restore: reseed, then whoever registered here ─► requests

The model, its buffers and the engine are the same in every copy, and meant to be. What has to differ is chance:
whatever was seeded before the snapshot would draw the same numbers in all of them. What was open then is closed: the
predictor opens nothing at init that it keeps, so nobody has to open it again. And each copy's first request is its cold
one.

Lambda's own runtime has the library that these hooks are registered with, and our images bring it; elsewhere (a
container outside of Lambda, a test) there is no restore, and registering does nothing. Hooks have ten seconds; these
take less than a millisecond.

Left out: entropy of the kernel and of OpenSSL, which Lambda's base reseeds itself; `hash()` of strings, which is the
same in all copies (requests choose no dictionary keys that are kept).
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable


def after_restore(act: Callable[[], object]) -> bool:
    """Reseed and then do this whenever Lambda restores the process; tell whether it can.

    Args:
        act: puts back what belongs to one environment; it should not raise, or the environment is thrown away.
    """
    try:
        from snapshot_restore_py import register_after_restore  # noqa: PLC0415 - see the module's story
    except ImportError:
        return False
    register_after_restore(reseed)
    register_after_restore(act)
    return True


def reseed() -> None:
    """Seed every generator that is loaded with fresh entropy of the operating system."""
    random.seed()
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()
    if (torch := sys.modules.get("torch")) and hasattr(torch, "seed"):
        torch.seed()
