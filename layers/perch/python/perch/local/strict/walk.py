"""One walk over a template: every resource as it says, dependencies first.

Each resource's properties are *resolved*, and it is created, updated or replaced when they differ from those it had.
What the template no longer has, and what was replaced, goes last. The walk keeps what it deployed on the stack's
resource map, so the next walk, or the one back after a failure, starts from what is there.
"""

from __future__ import annotations

import copy
import graphlib
import re
from collections.abc import Iterator
from typing import Any

from moto.cloudformation import models, parsing
from moto.cloudformation.exceptions import ValidationError

from perch.local.strict.resources import supported

_SUB = re.compile(r"\$\{([A-Za-z0-9]+)(?:\.[^}]*)?\}")


class ResourceFailed(Exception):
    """One resource could not be created, updated or deleted."""

    def __init__(self, logical_id: str, action: str, reason: str) -> None:
        super().__init__(f"{logical_id}: {reason}")
        self.logical_id = logical_id
        self.action = action
        self.reason = reason


# --- what depends on what --------------------------------------------------------------------------------------------


def references(part: Any) -> Iterator[str]:
    """Yield the logical ids that a part of a template refers to (Ref, Fn::GetAtt, Fn::Sub)."""
    if isinstance(part, list):
        for item in part:
            yield from references(item)
    elif isinstance(part, dict):
        for key, value in part.items():
            if key == "Ref" and isinstance(value, str):
                yield value
            elif key == "Fn::GetAtt":
                yield value.split(".")[0] if isinstance(value, str) else value[0]
            elif key == "Fn::Sub":
                text = value if isinstance(value, str) else value[0]
                yield from (match.group(1) for match in _SUB.finditer(text))
                if isinstance(value, list):
                    yield from references(value[1:])
            else:
                yield from references(value)


def in_order(resources: dict[str, Any]) -> list[str]:
    """Return the logical ids, dependencies first and otherwise as written; raises ValidationError for a circle."""
    sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    for logical_id, resource in resources.items():
        explicit = resource.get("DependsOn", [])
        explicit = [explicit] if isinstance(explicit, str) else explicit
        named = {*references(resource.get("Properties", {})), *explicit}
        sorter.add(logical_id, *[name for name in resources if name in named and name != logical_id])
    try:
        return list(sorter.static_order())
    except graphlib.CycleError as error:
        circle = ", ".join(dict.fromkeys(error.args[1]))
        raise ValidationError(message=f"Circular dependency between resources: [{circle}]") from None


# --- one walk --------------------------------------------------------------------------------------------------------


class Walk:
    """One deployment of a template onto a stack's resources."""

    def __init__(self, stack: Any, template: dict[str, Any], parameters: dict[str, Any]) -> None:
        self.stack = stack
        self.map = stack.resource_map
        self.template = template
        self.parameters = parameters
        self.resources: dict[str, Any] = template.get("Resources", {})
        self.before: dict[str, Any] = self.map.__dict__.setdefault("strict_deployed", {})
        self.discarded: list[tuple[str, Any, dict[str, Any]]] = []

    def go(self) -> None:
        """Create, update and delete until the resources are as the template says; raises ResourceFailed."""
        self._load()
        wanted = []
        for logical_id in in_order(self.resources):
            condition = self.resources[logical_id].get("Condition")
            if condition and not self.map.lazy_condition_map[condition]:
                continue
            wanted.append(logical_id)
            self._converge(logical_id)
        for logical_id in [name for name in reversed(self.before) if name not in wanted]:
            self._remove(logical_id)
        for logical_id, resource, deployed in reversed(self.discarded):
            self._delete(logical_id, resource, deployed, "UpdateReplacePolicy")

    def _load(self) -> None:
        resource_map = self.map
        resource_map._template = self.template
        resource_map._resource_json_map = self.resources
        resource_map.input_parameters = self.parameters
        resource_map.resolved_parameters = {}
        resource_map.cross_stack_resources = self.stack.cross_stack_resources
        resource_map.load()
        resource_map.tags.update(
            {"aws:cloudformation:stack-name": self.stack.name, "aws:cloudformation:stack-id": self.stack.stack_id}
        )

    def _converge(self, logical_id: str) -> None:
        definition = copy.deepcopy(self.resources[logical_id])
        kind = definition["Type"]
        deployed = self.before.get(logical_id)
        action = "CREATE" if deployed is None else "UPDATE"
        try:
            if not supported(kind):
                raise ValueError(  # noqa: TRY301 - worded as every other reason
                    f"The local cloud does not support resources of type {kind}."
                )
            properties = parsing.clean_json(definition.get("Properties", {}), self.map) or {}
            if deployed is None:
                self._create(logical_id, kind, properties, definition)
            elif deployed["Type"] != kind:
                self._replace(logical_id, kind, properties, definition)
            elif deployed["Properties"] != properties:
                self._update(logical_id, kind, properties, definition)
            else:
                self.before[logical_id] = {**definition, "Properties": properties}
        except Exception as error:
            raise ResourceFailed(logical_id, action, reason_of(error)) from error

    def _create(self, logical_id: str, kind: str, properties: dict[str, Any], definition: dict[str, Any]) -> None:
        self._event(logical_id, kind, "", "CREATE_IN_PROGRESS")
        given = {**definition, "Properties": copy.deepcopy(properties)}
        resource = parsing.parse_and_create_resource(
            logical_id, given, self.map, self.map._account_id, self.map._region_name
        )
        if resource is None:
            raise ValueError(f"The resource of type {kind} was not created.")
        self._put(logical_id, resource, definition, properties, "CREATE_COMPLETE")

    def _update(self, logical_id: str, kind: str, properties: dict[str, Any], definition: dict[str, Any]) -> None:
        resource = self.map._parsed_resources[logical_id]
        resource_class = parsing.resource_class_from_type(kind)
        name_property = parsing.resource_name_property_from_type(kind)
        renamed = name_property and properties.get(name_property) != self.before[logical_id]["Properties"].get(
            name_property
        )
        no_update = hasattr(resource_class.update_from_cloudformation_json, "__isabstractmethod__")
        if renamed or no_update or getattr(resource_class, "REPLACES", False):
            self._replace(logical_id, kind, properties, definition)
            return
        self._event(logical_id, kind, resource.physical_resource_id, "UPDATE_IN_PROGRESS")
        name = getattr(resource, "name", None) or resource.physical_resource_id
        resource.strict_previous = self.before[logical_id]["Properties"]
        changed = resource_class.update_from_cloudformation_json(
            original_resource=resource,
            new_resource_name=properties.get(name_property, name) if name_property else name,
            cloudformation_json={**definition, "Properties": copy.deepcopy(properties)},
            account_id=self.map._account_id,
            region_name=self.map._region_name,
        )
        changed.cf_resource_type, changed.logical_resource_id = kind, logical_id
        self._put(logical_id, changed, definition, properties, "UPDATE_COMPLETE")

    def _replace(self, logical_id: str, kind: str, properties: dict[str, Any], definition: dict[str, Any]) -> None:
        # The new one first and the old one after the rest of the template uses the new: as CloudFormation does it.
        # A resource of a fixed name cannot be there twice, so there the old one goes first.
        old, deployed = self.map._parsed_resources[logical_id], self.before[logical_id]
        name_property = parsing.resource_name_property_from_type(kind)
        fixed = name_property and name_property in properties and deployed["Type"] == kind
        same_name = fixed and properties[name_property] == deployed["Properties"].get(name_property)
        versioned = getattr(parsing.resource_class_from_type(kind), "VERSIONED", False)
        if same_name and not versioned:
            self._delete(logical_id, old, deployed, "UpdateReplacePolicy")
        else:
            self.discarded.append((logical_id, old, deployed))
        self.map._parsed_resources.pop(logical_id)
        self.before.pop(logical_id)
        self._create(logical_id, kind, properties, definition)

    def _put(
        self, logical_id: str, resource: Any, definition: dict[str, Any], properties: dict[str, Any], status: str
    ) -> None:
        self.map._parsed_resources[logical_id] = resource
        # Re-inserted at the end, so that the order of deployment is the order of the dict.
        self.before.pop(logical_id, None)
        self.before[logical_id] = {**definition, "Properties": properties}
        self._event(logical_id, definition["Type"], resource.physical_resource_id, status)

    def _remove(self, logical_id: str) -> None:
        deployed = self.before.pop(logical_id)
        resource = self.map._parsed_resources.pop(logical_id, None)
        if resource is not None:
            self._delete(logical_id, resource, deployed, "DeletionPolicy")

    def _delete(self, logical_id: str, resource: Any, deployed: dict[str, Any], policy: str) -> None:
        kind, physical_id = deployed["Type"], resource.physical_resource_id
        if deployed.get(policy) == "Retain":
            self._event(logical_id, kind, physical_id, "DELETE_SKIPPED")
            return
        self._event(logical_id, kind, physical_id, "DELETE_IN_PROGRESS")
        try:
            self.map._delete_resource(resource, deployed)
        except Exception as error:  # noqa: BLE001 - as in CloudFormation, a clean-up that fails does not fail the stack
            self._event(logical_id, kind, physical_id, "DELETE_FAILED", reason_of(error))
        else:
            self._event(logical_id, kind, physical_id, "DELETE_COMPLETE")

    def _event(self, logical_id: str, kind: str, physical_id: str, status: str, reason: str | None = None) -> None:
        self.stack.events.append(
            models.Event(
                stack_id=self.stack.stack_id,
                stack_name=self.stack.name,
                logical_resource_id=logical_id,
                physical_resource_id=physical_id,
                resource_type=kind,
                resource_status=status,
                resource_status_reason=reason,
                resource_properties=None,
            )
        )

    def failed(self, failure: ResourceFailed) -> None:
        """Write the event of the resource that failed."""
        kind = self.resources[failure.logical_id]["Type"]
        physical = getattr(self.map._parsed_resources.get(failure.logical_id), "physical_resource_id", "")
        self._event(failure.logical_id, kind, physical, f"{failure.action}_FAILED", failure.reason)

    def remove_all(self) -> None:
        """Delete everything that was deployed, last first; what is retained on purpose is retained only if it was."""
        for logical_id in list(reversed(self.before)):
            self._remove(logical_id)


def reason_of(error: Exception) -> str:
    """Return an error in words."""
    return str(getattr(error, "message", "") or str(error) or type(error).__name__)
