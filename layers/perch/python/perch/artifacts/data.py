"""The bytes of an artifact, as inspectors and loaders take them: the whole file, to be read and never copied whole."""

from __future__ import annotations

from typing import TypeAlias

Data: TypeAlias = bytes | memoryview
