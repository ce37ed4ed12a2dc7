"""CloudFormation made strict: stacks that converge on their template, fail aloud, and roll back.

Moto creates what it knows, warns about the rest, and calls the stack complete; on an update it compares the text of
two templates, so a resource whose text is the same but that refers to one that was replaced keeps the old reference.
Here a deployment is one walk over the template, dependencies first: each resource's properties are *resolved*, and it
is created, updated or replaced when they differ from those it had. What the new template no longer has goes last. A
type that is not supported, or a call that fails, fails the stack with the reason in its events, and the walk is made
back to where it came from. Change sets (the CDK's command-line tool uses nothing else) take the same walk.

Left out: custom resources, macros, nested stacks, drift, stack policies, imports, and whether an export is still used.
"""

from __future__ import annotations

import copy
import graphlib
import re
import threading
from collections.abc import Iterator
from typing import Any

from moto.cloudformation import models, parsing
from moto.cloudformation.exceptions import AlreadyExistsException, ValidationError

from perch.local.strict.lambda_state import settled_at_once
from perch.local.strict.patching import Patches
from perch.local.strict.resources import RESOURCES, supported

_LOCK = threading.RLock()
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


class _Walk:
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
            raise ResourceFailed(logical_id, action, _reason(error)) from error

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
            self._event(logical_id, kind, physical_id, "DELETE_FAILED", _reason(error))
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


def _reason(error: Exception) -> str:
    return str(getattr(error, "message", "") or str(error) or type(error).__name__)


# --- stacks ----------------------------------------------------------------------------------------------------------


def _deploy(backend: Any, stack: Any, template: str, parameters: dict[str, Any], *, action: str) -> None:
    """Bring a stack to a template; afterwards its status tells how it went (nothing is raised for a resource)."""
    with _LOCK, settled_at_once():
        earlier = (stack.template, dict(stack.parameters or {}))
        stack.cross_stack_resources = backend.exports
        stack.status = f"{action}_IN_PROGRESS"
        stack._add_stack_event(stack.status, resource_status_reason="User Initiated")
        walk = _Walk(stack, stack.parse_template(template), parameters)
        try:
            walk.go()
            _finish(backend, stack, template, parameters)
        except ResourceFailed as failure:
            walk.failed(failure)
            reason = f"The following resource(s) failed: [{failure.logical_id}]. {failure.reason}"
        except Exception as error:  # noqa: BLE001 - the stack's status is where the caller looks
            if action == "CREATE":
                _forget(stack)
            reason = _reason(error)
        else:
            stack.status = f"{action}_COMPLETE"
            stack._add_stack_event(stack.status)
            return
        _roll_back(backend, stack, walk, earlier, action=action, reason=reason)


def _finish(backend: Any, stack: Any, template: str, parameters: dict[str, Any]) -> None:
    stack.template, stack.parameters = template, parameters
    stack._parse_template()
    stack.description = stack.template_dict.get("Description")
    stack.output_map = models.OutputMap(stack.resource_map, stack.template_dict, stack.stack_id)
    exports = {export.name: export for export in stack.exports}
    for name, export in exports.items():
        if name in backend.exports and backend.exports[name].exporting_stack_id != stack.stack_id:
            raise ValidationError(message=f"Export with name {name} is already exported by another stack.")
        backend.exports[name] = export
    for name in [name for name, export in backend.exports.items() if export.exporting_stack_id == stack.stack_id]:
        if name not in exports:
            del backend.exports[name]
    _ = stack.outputs  # an output that cannot be resolved fails the deployment, not a later look at the stack


def _roll_back(
    backend: Any, stack: Any, walk: _Walk, earlier: tuple[Any, dict[str, Any]], *, action: str, reason: str
) -> None:
    in_progress = "ROLLBACK_IN_PROGRESS" if action == "CREATE" else "UPDATE_ROLLBACK_IN_PROGRESS"
    stack.status = in_progress
    stack._add_stack_event(in_progress, resource_status_reason=reason)
    if action == "CREATE":
        walk.remove_all()
        _forget(stack)
        stack.status = "ROLLBACK_COMPLETE"
    else:
        template, parameters = earlier
        try:
            _Walk(stack, stack.parse_template(template), parameters).go()
            _finish(backend, stack, template, parameters)
            stack.status = "UPDATE_ROLLBACK_COMPLETE"
        except Exception as error:  # noqa: BLE001 - the stack's status is where the caller looks
            reason = _reason(error)
            stack.status = "UPDATE_ROLLBACK_FAILED"
    stack._add_stack_event(stack.status, resource_status_reason=reason)


def _forget(stack: Any) -> None:
    # Moto looks up what it does not find by creating it; an empty map keeps a look at a failed stack harmless.
    stack.resource_map._template = {"Resources": {}}
    stack.resource_map._resource_json_map = {}
    stack.output_map = models.OutputMap(stack.resource_map, {}, stack.stack_id)


def _create_stack(
    self: Any,
    name: str,
    template: str,
    parameters: dict[str, Any],
    notification_arns: list[str] | None = None,
    tags: dict[str, str] | None = None,
    role_arn: str | None = None,
    enable_termination_protection: bool | None = False,
    timeout_in_mins: int | None = None,
    stack_policy_body: str | None = None,
) -> Any:
    if name in [stack.name for stack in self.stacks.values()]:
        raise AlreadyExistsException(f"Stack {name} already exists")
    stack = models.Stack(
        stack_id=models.generate_stack_id(name, self.region_name, self.account_id),
        name=name,
        template=template,
        parameters=parameters,
        account_id=self.account_id,
        region_name=self.region_name,
        notification_arns=notification_arns,
        tags=tags,
        role_arn=role_arn,
        cross_stack_resources=self.exports,
        enable_termination_protection=enable_termination_protection,
        timeout_in_mins=timeout_in_mins,
        stack_policy_body=stack_policy_body,
    )
    in_order(stack.template_dict.get("Resources", {}))
    self.stacks[stack.stack_id] = stack
    _deploy(self, stack, template, parameters, action="CREATE")
    return stack


def _update_stack(
    self: Any,
    name: str,
    template: str,
    role_arn: str | None,
    parameters: list[dict[str, Any]],
    tags: dict[str, str] | None,
) -> Any:
    stack = self.get_stack(name)
    resolved = self._resolve_update_parameters(instance=stack, incoming_params=parameters)
    if stack.has_template(template) and resolved == (stack.parameters or {}):
        raise ValidationError(message="No updates are to be performed.")
    stack.role_arn = role_arn or stack.role_arn
    if tags is not None:
        stack.tags = tags
    _deploy(self, stack, template, resolved, action="UPDATE")
    return stack


def _execute_change_set(self: Any, change_set_name: str, stack_name: str | None = None) -> None:
    found = [
        change_set
        for key, change_set in self.change_sets.items()
        if change_set_name == key
        or (change_set_name == change_set.change_set_name and stack_name in {None, *_names(change_set)})
    ]
    if not found:
        raise ValidationError(stack_name or change_set_name)
    change_set = found[-1]
    if change_set.execution_status != "AVAILABLE":
        raise ValidationError(
            message=f"ChangeSet [{change_set.change_set_id}] cannot be executed in its current status of "
            f"[{change_set.status}]"
        )
    stack = self.stacks[change_set.stack_id]
    action = "CREATE" if change_set.change_set_type == "CREATE" else "UPDATE"
    change_set.execution_status = "EXECUTE_IN_PROGRESS"
    if change_set.tags is not None:
        stack.tags = change_set.tags
    _deploy(self, stack, change_set.template, change_set.parameters, action=action)
    done = stack.status == f"{action}_COMPLETE"
    change_set.execution_status = "EXECUTE_COMPLETE" if done else "EXECUTE_FAILED"


def _names(change_set: Any) -> tuple[str, str]:
    return change_set.stack_name, change_set.stack_id


def _resource_class(resource_type: str) -> Any:
    return RESOURCES.get(resource_type) or _Originals.resource_class_from_type(resource_type)


def _resource_name_property(resource_type: str) -> Any:
    if resource_type in RESOURCES:
        return RESOURCES[resource_type].cloudformation_name_type()
    return _Originals.resource_name_property_from_type(resource_type)


class _Originals:
    resource_class_from_type = staticmethod(parsing.resource_class_from_type)
    resource_name_property_from_type = staticmethod(parsing.resource_name_property_from_type)


def install(patches: Patches) -> None:
    """Replace how stacks are deployed, and add the resource types of `perch.local.strict.resources`."""
    patches.set_all(
        models.CloudFormationBackend,
        {"create_stack": _create_stack, "update_stack": _update_stack, "execute_change_set": _execute_change_set},
    )
    patches.set(parsing, "resource_class_from_type", _resource_class)
    patches.set(parsing, "resource_name_property_from_type", _resource_name_property)
