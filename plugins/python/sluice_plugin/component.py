"""A plugin as the exports of a component. Only there, beside the bindings that componentize-py makes, can this be imported."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import guest

from .error import PluginError, public_text
from .plugin import Plugin


def guest_of(module):
    """The exported interface `guest` of the one plugin in a module."""
    plugins = [value for value in vars(module).values() if isinstance(value, Plugin)]
    if len(plugins) != 1:
        raise PluginError(f"{module.__name__}.py has {len(plugins)} functions with @plugin(…); it must have one")
    plugin = plugins[0]

    class Guest(exports.Guest):
        def describe(self):
            kind = guest.Kind[plugin.kind.upper()]
            return guest.Description(plugin.name, plugin.version, kind, plugin.reads, plugin.writes, plugin.config_schema)

        def init(self, config):
            try:
                plugin.init(config)
            except Exception as error:
                raise Err(str(error) or type(error).__name__) from None

        def process(self, batch, context):
            try:
                return _outcome(plugin.process(batch, context))
            except Exception as error:
                raise Err(public_text(error)) from None

    return Guest


def _outcome(outcome):
    aside = outcome["quarantine"]
    return guest.Outcome(
        outcome["selection"],
        outcome["columns"],
        outcome["weight"],
        [guest.DropCount(reason, rows) for reason, rows in outcome["drops"]],
        guest.Quarantined(*aside) if aside else None,
    )
