"""The configuration of a plugin: a JSON Schema of the few keywords below, and errors that an operator can act on."""

import json
import re

from .error import PluginError, suggestion

_PYTHON_TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}
_KEYWORDS = {
    "all": ["type", "description", "title", "default", "enum", "examples"],
    "string": ["minLength", "maxLength", "pattern"],
    "integer": ["minimum", "maximum"],
    "number": ["minimum", "maximum"],
    "boolean": [],
    "array": ["items", "minItems", "maxItems"],
    "object": ["properties", "additionalProperties", "required"],
}


class Config(dict):
    """The configuration; its keys are attributes, too."""

    def __getattr__(self, key):
        try:
            return self[key]
        except KeyError:
            raise AttributeError(f"the configuration has no key `{key}`") from None


def config_schema(properties):
    """The schema of an object whose keys are these; None without any.

    A key without `default` must be given; one with `default: None` may be left out and is then None. Keys that are not named are
    refused. What a schema says is enforced; keywords not known here are refused.
    """
    return None if properties is None else _completed({"type": "object", "properties": properties}, "config")


def _completed(schema, path):
    if not isinstance(schema, dict) or schema.get("type") not in _PYTHON_TYPES:
        raise PluginError(f"`{path}` must be a schema with a `type`, one of {', '.join(_PYTHON_TYPES)}")
    known = _KEYWORDS["all"] + _KEYWORDS[schema["type"]]
    for keyword in schema:
        if keyword not in known:
            raise PluginError(f"`{path}` has `{keyword}`, which is not known here{suggestion(keyword, known)}")
    out = {keyword: value for keyword, value in schema.items() if keyword != "default" or value is not None}
    if "items" in schema:
        out["items"] = _completed(schema["items"], f"{path}[]")
    if schema["type"] == "object":
        properties = schema.get("properties")
        if properties is not None:
            out["properties"] = {key: _completed(inner, f"{path}.{key}") for key, inner in properties.items()}
            without_default = [key for key, inner in properties.items() if "default" not in inner]
            out["required"] = schema.get("required", without_default)
        others = schema.get("additionalProperties", properties is None)
        out["additionalProperties"] = _completed(others, f"{path}.*") if isinstance(others, dict) else others
    return out


def read_config(schema, text):
    """The configuration in a text of JSON, with defaults filled in."""
    try:
        value = json.loads(text) if text.strip() else {}
    except ValueError:
        raise PluginError("the configuration is not JSON") from None
    if schema is not None:
        return _checked(schema, value, "")
    if value:
        raise PluginError(f"`{next(iter(value))}` is set, but this plugin has no configuration")
    return Config()


def _checked(schema, value, path):
    def bad(what):
        return PluginError(f"`{path}` {what}" if path else f"the configuration {what}")

    kind = schema["type"]
    if not isinstance(value, _PYTHON_TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        raise bad(f"must be {'an' if kind[0] in 'aeiou' else 'a'} {kind}, not {_shown(value)}")
    if "enum" in schema and value not in schema["enum"]:
        raise bad(f"must be one of {', '.join(map(_shown, schema['enum']))}, not {_shown(value)}")
    if "minimum" in schema and value < schema["minimum"]:
        raise bad(f"must be at least {schema['minimum']}")
    if "maximum" in schema and value > schema["maximum"]:
        raise bad(f"must be at most {schema['maximum']}")
    for least, most, units in (("minLength", "maxLength", "characters"), ("minItems", "maxItems", "items")):
        if least in schema and len(value) < schema[least]:
            raise bad(f"must have at least {schema[least]} {units}")
        if most in schema and len(value) > schema[most]:
            raise bad(f"must have at most {schema[most]} {units}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        raise bad(f"must match {schema['pattern']}")
    if "items" in schema:
        return [_checked(schema["items"], item, f"{path}[{index}]") for index, item in enumerate(value)]
    return _object(schema, value, path, bad) if kind == "object" else value


def _object(schema, value, path, bad):
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    out = Config()
    for key, inner in value.items():
        own = properties.get(key, schema["additionalProperties"])
        if own is False:
            raise bad(f"has no key `{key}`{suggestion(key, properties)}")
        left_out = inner is None and key in properties and key not in required
        out[key] = inner if own is True or left_out else _checked(own, inner, f"{path}.{key}" if path else key)
    for key, inner in properties.items():
        if key in out:
            continue
        if key in required:
            raise bad(f"needs the key `{key}`" + (f": {inner['description']}" if "description" in inner else ""))
        out[key] = _checked(inner, inner["default"], f"{path}.{key}" if path else key) if "default" in inner else None
    return out


def _shown(value):
    return json.dumps(value)[:60]
