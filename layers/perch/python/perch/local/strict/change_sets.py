"""Change sets, found by the stack they belong to: the CDK's tool gives those of all stacks the same name.

Left out: nested change sets, drift-aware ones, and what a change set says of replacement.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moto.cloudformation import models, responses
from moto.cloudformation.exceptions import CloudFormationError
from moto.core.responses import ActionResult, EmptyResult

from perch.local.patches import Patches


class ChangeSetNotFound(CloudFormationError):  # type: ignore[misc]
    """There is no such change set."""

    code = "ChangeSetNotFound"


def find(backend: Any, name: str, stack_name: str | None) -> Any:
    """Return the newest change set of this ARN, or of this name and stack (name or id); raises ChangeSetNotFound."""
    if name in backend.change_sets:
        return backend.change_sets[name]
    for change_set in reversed(list(backend.change_sets.values())):
        of_stack = stack_name in {None, change_set.stack_name, change_set.stack_id}
        if change_set.change_set_name == name and of_stack:
            return change_set
    raise ChangeSetNotFound(f"ChangeSet [{name}] does not exist")


def _describe(self: Any) -> Any:
    return ActionResult(find(self.cloudformation_backend, self._get_param("ChangeSetName"), _stack(self)))


def _delete(self: Any) -> Any:
    # Deleting one that is not there is no error.
    backend = self.cloudformation_backend
    try:
        change_set = find(backend, self._get_param("ChangeSetName"), _stack(self))
    except ChangeSetNotFound:
        return EmptyResult()
    del backend.change_sets[change_set.change_set_id]
    return EmptyResult()


def _list(self: Any) -> Any:
    wanted = _stack(self)
    found = [
        change_set
        for change_set in self.cloudformation_backend.change_sets.values()
        if wanted in {None, change_set.stack_name, change_set.stack_id}
    ]
    return ActionResult({"Summaries": found})


def _stack(self: Any) -> str | None:
    name: str | None = self._get_param("StackName")
    return name


def _create(original: Callable[..., Any]) -> Callable[..., Any]:
    def create(self: Any, stack_name: str, change_set_name: str, *args: Any, **kwargs: Any) -> Any:
        # A name is free again once its change set was executed or deleted.
        for key, change_set in list(self.change_sets.items()):
            mine = stack_name in {change_set.stack_name, change_set.stack_id}
            if mine and change_set.change_set_name == change_set_name:
                del self.change_sets[key]
        return original(self, stack_name, change_set_name, *args, **kwargs)

    return create


def install(patches: Patches) -> None:
    """Look change sets up by stack."""
    patches.set_all(
        responses.CloudFormationResponse,
        {"describe_change_set": _describe, "delete_change_set": _delete, "list_change_sets": _list},
    )
    patches.wrap(models.CloudFormationBackend, "create_change_set", _create)
