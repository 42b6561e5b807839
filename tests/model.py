"""botocore's model of the service, as the oracle of what is valid and how it is sent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from botocore import loaders, model, serialize, validate

_TYPES: dict[str, type[Any]] = {
    "structure": dict,
    "map": dict,
    "list": list,
    "string": str,
    "integer": int,
    "boolean": bool,
}


@cache
def service() -> model.ServiceModel:
    return model.ServiceModel(loaders.Loader().load_service_model("m2", "service-2"))


def serialized(operation: str, members: dict[str, Any]) -> dict[str, Any]:
    """The request as botocore would send it, after its own validator has passed it."""
    shape = service().operation_model(operation)
    assert shape.input_shape is not None
    report = validate.ParamValidator().validate(members, shape.input_shape)
    assert not report.has_errors(), report.generate_report()
    request: dict[str, Any] = serialize.create_serializer("rest-json").serialize_to_request(members, shape)
    return request


def violations(value: Any, shape: Any, path: str = "") -> Iterator[str]:
    """Every way in which a value breaks the types, lengths, patterns, counts and unions of its shape."""
    if type(value) is not _TYPES[shape.type_name]:
        yield f"{path}: not a {shape.type_name}"
        return
    limits: dict[str, Any] = shape.metadata
    if shape.type_name == "integer":
        if not -(2**31) <= value < 2**31:
            yield f"{path}: not of 32 bits"
    elif shape.type_name != "boolean" and shape.type_name != "structure":
        if not limits.get("min", 0) <= len(value) <= limits.get("max", 10**9):
            yield f"{path}: length {len(value)}"
        if "pattern" in limits and not re.fullmatch(limits["pattern"], value):
            yield f"{path}: pattern {limits['pattern']}"
    if shape.type_name == "structure":
        given = {name: member for name, member in value.items() if member is not None}
        yield from (f"{path}.{name}: missing" for name in shape.required_members if name not in given)
        yield from (f"{path}.{name}: unknown" for name in given if name not in shape.members)
        if getattr(shape, "is_tagged_union", False) and len(given) != 1:
            yield f"{path}: {len(given)} members of a union"
        for name in given.keys() & shape.members.keys():
            yield from violations(given[name], shape.members[name], f"{path}.{name}")
    elif shape.type_name == "map":
        for name, member in value.items():
            yield from violations(name, shape.key, f"{path}[key]")
            yield from violations(member, shape.value, f"{path}.{name}")
