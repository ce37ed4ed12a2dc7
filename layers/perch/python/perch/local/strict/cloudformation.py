"""CloudFormation made strict: stacks that converge on their template, fail aloud, and roll back.

Moto creates what it knows, warns about the rest, and calls the stack complete; on an update it compares the text of
two templates, so a resource whose text is the same but that refers to one that was replaced keeps the old reference.
Here a deployment is one walk over the template (`walk.py`) that compares what is meant, not what is written. A type
that is not supported, or a call that fails, fails the stack with the reason in its events, and the walk is made back to
where it came from. Change sets (the CDK's command-line tool uses nothing else) take the same walk.

Left out: custom resources, macros, nested stacks, drift, stack policies, imports, and whether an export is still used.
"""

from __future__ import annotations

import threading
from typing import Any

from moto.cloudformation import models, parsing
from moto.cloudformation.exceptions import AlreadyExistsException, ValidationError

from perch.local.patches import Patches
from perch.local.strict.change_sets import find
from perch.local.strict.lambda_state import settled_at_once
from perch.local.strict.resources import RESOURCES
from perch.local.strict.walk import ResourceFailed, Walk, in_order, reason_of

_LOCK = threading.RLock()


def _deploy(backend: Any, stack: Any, template: str, parameters: dict[str, Any], *, action: str) -> None:
    """Bring a stack to a template; afterwards its status tells how it went (nothing is raised for a resource)."""
    with _LOCK, settled_at_once():
        earlier = (stack.template, dict(stack.parameters or {}))
        stack.cross_stack_resources = backend.exports
        stack.status = f"{action}_IN_PROGRESS"
        stack._add_stack_event(stack.status, resource_status_reason="User Initiated")
        walk = Walk(stack, stack.parse_template(template), parameters)
        try:
            walk.go()
            _finish(backend, stack, template, parameters)
        except ResourceFailed as failure:
            walk.failed(failure)
            reason = f"The following resource(s) failed: [{failure.logical_id}]. {failure.reason}"
        except Exception as error:  # noqa: BLE001 - the stack's status is where the caller looks
            if action == "CREATE":
                _forget(stack)
            reason = reason_of(error)
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
    backend: Any, stack: Any, walk: Walk, earlier: tuple[Any, dict[str, Any]], *, action: str, reason: str
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
            Walk(stack, stack.parse_template(template), parameters).go()
            _finish(backend, stack, template, parameters)
            stack.status = "UPDATE_ROLLBACK_COMPLETE"
        except Exception as error:  # noqa: BLE001 - the stack's status is where the caller looks
            reason = reason_of(error)
            stack.status = "UPDATE_ROLLBACK_FAILED"
    stack._add_stack_event(stack.status, resource_status_reason=reason)


def _forget(stack: Any) -> None:
    # Nothing is left that an output could refer to.
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
    before = stack.stack_parameters
    resolved = {
        parameter["ParameterKey"]: before[parameter["ParameterKey"]]
        if parameter.get("UsePreviousValue")
        else parameter["ParameterValue"]
        for parameter in parameters
    }
    if stack.has_template(template) and {**before, **resolved} == before:
        raise ValidationError(message="No updates are to be performed.")
    stack.role_arn = role_arn or stack.role_arn
    if tags is not None:
        stack.tags = tags
    _deploy(self, stack, template, resolved, action="UPDATE")
    return stack


def _execute_change_set(self: Any, change_set_name: str, stack_name: str | None = None) -> None:
    change_set = find(self, change_set_name, stack_name)
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


def _stack_parameters(self: Any) -> dict[str, Any]:
    # As they were given, or the template's defaults. Moto gives what they resolved to, so that the "previous value" of
    # a parameter that names an SSM parameter would be looked up once more by its value.
    declared = self.template_dict.get("Parameters", {})
    given = self.parameters or {}
    return {name: given.get(name, about.get("Default")) for name, about in declared.items()}


def _get_resource(self: Any, key: str) -> Any:
    # Moto makes what it is asked for and does not have, so that describing a stack would complete it. Here only a walk
    # makes resources, and it makes them before anything refers to them.
    if key in self._parsed_resources:
        return self._parsed_resources[key]
    if key in self._resource_json_map:
        return None
    raise KeyError(key)


def _stack_resources(self: Any) -> list[Any]:
    return [resource for resource in self.resource_map.values() if resource is not None]


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
    patches.set(parsing.ResourceMap, "__getitem__", _get_resource)
    patches.set(models.Stack, "stack_resources", property(_stack_resources))
    patches.set(models.Stack, "stack_parameters", property(_stack_parameters))
    patches.set(parsing, "resource_class_from_type", _resource_class)
    patches.set(parsing, "resource_name_property_from_type", _resource_name_property)
