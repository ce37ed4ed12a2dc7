"""What the CloudFormation resource types of the local cloud have in common.

A type is a class with three verbs: `create` gives back the resource, `update` changes it in place knowing the
properties it had before, `delete` removes it. A type whose `REPLACES` is true is replaced on every change; one that is
`VERSIONED` may be there twice under one name. The object that `create` gives back needs only a `physical_resource_id`
(what Ref gives) and `get_cfn_attribute` (what Fn::GetAtt gives), so moto's own objects serve where they have them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from moto.cloudformation.exceptions import UnformattedGetAttTemplateException
from moto.core.common_models import CloudFormationModel


@dataclass(frozen=True)
class Request:
    """One create or update of a resource: its properties are resolved, `previous` are those before the update."""

    name: str
    logical_id: str
    properties: dict[str, Any]
    account_id: str
    region: str
    previous: dict[str, Any] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        """Return one property."""
        return self.properties.get(name, default)

    def changed(self) -> dict[str, Any]:
        """Return the properties that differ from before; one that is gone has the value None."""
        names = [*self.properties, *(name for name in self.previous if name not in self.properties)]
        return {
            name: self.properties.get(name) for name in names if self.properties.get(name) != self.previous.get(name)
        }


@dataclass
class Made:
    """A resource that moto has no object for: what Ref gives, what Fn::GetAtt gives, and how it is deleted."""

    physical_resource_id: str
    attributes: dict[str, Any] = field(default_factory=dict)
    remove: Callable[[], None] = lambda: None
    cf_resource_type: str = ""
    logical_resource_id: str = ""
    strict_previous: dict[str, Any] = field(default_factory=dict)

    def get_cfn_attribute(self, attribute_name: str) -> Any:
        """Return what Fn::GetAtt gives."""
        if attribute_name not in self.attributes:
            raise UnformattedGetAttTemplateException
        return self.attributes[attribute_name]

    def is_created(self) -> bool:
        """Creation is never left half done here."""
        return True

    def delete(self, _account_id: str, _region: str) -> None:
        """Remove the resource."""
        self.remove()


class Resource(CloudFormationModel):  # type: ignore[misc]  # moto carries no types
    """A CloudFormation resource type; subclasses set the names and write the verbs."""

    TYPE: ClassVar[str] = ""
    NAME: ClassVar[str] = ""
    ATTRIBUTES: ClassVar[frozenset[str]] = frozenset()
    REPLACES: ClassVar[bool] = False
    VERSIONED: ClassVar[bool] = False

    @classmethod
    def create(cls, request: Request) -> Any:
        """Make the resource."""
        raise NotImplementedError

    @classmethod
    def update(cls, resource: Any, request: Request) -> Any:
        """Change the resource; the default is for types that only hold what `create` writes anyway."""
        del resource
        return cls.create(request)

    @classmethod
    def cloudformation_type(cls) -> str:
        """The type's name in a template."""
        return cls.TYPE

    @classmethod
    def cloudformation_name_type(cls) -> str:
        """The property that holds the physical name."""
        return cls.NAME

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        """Say whether Fn::GetAtt knows an attribute."""
        return attr in cls.ATTRIBUTES

    @classmethod
    def create_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: dict[str, Any],
        account_id: str,
        region_name: str,
        **kwargs: Any,
    ) -> Any:
        """Moto's name for `create`."""
        properties = cloudformation_json["Properties"]
        logical_id = str(kwargs.get("LogicalId", ""))
        return cls.create(Request(resource_name, logical_id, properties, account_id, region_name))

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: Any,
        new_resource_name: str,
        cloudformation_json: dict[str, Any],
        account_id: str,
        region_name: str,
    ) -> Any:
        """Moto's name for `update`."""
        return cls.update(
            original_resource,
            Request(
                new_resource_name,
                original_resource.logical_resource_id,
                cloudformation_json["Properties"],
                account_id,
                region_name,
                previous=original_resource.strict_previous,
            ),
        )


def split_function(reference: str) -> tuple[str, str | None]:
    """Return name and qualifier of a function given by name, ARN, or either with a qualifier."""
    name, _, qualifier = reference.rpartition(":function:")[2].partition(":")
    return name, qualifier or None
