"""{{name}}: keeps warnings and worse, and everything of some services."""

from sluice_plugin import WARN, plugin

SERVICES = {
    "type": "array",
    "items": {"type": "string"},
    "default": [],
    "description": "Services of which every event is kept.",
}


@plugin(name="{{name}}", version="0.1.0", kind="filter", reads=["severity", "service"], config={"services": SERVICES})
def keep(row, config):
    return row.severity >= WARN or row.service in config.services
