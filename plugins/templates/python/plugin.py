"""Keeps warnings and worse, and everything of the services that are named in the configuration."""

from sluice_plugin import WARN, plugin

SERVICES = {"type": "array", "items": {"type": "string"}, "default": [], "description": "services that are kept as a whole"}


@plugin(name="{{name}}", version="0.1.0", kind="filter", reads=["severity", "service"], config={"keep": SERVICES})
def keep(row, config):
    return row.severity >= WARN or row.service in config.keep
