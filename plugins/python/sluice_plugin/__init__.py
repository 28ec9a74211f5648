"""Write a Sluice plugin in Python: rows or columns in, a verdict or changed columns out.

    from sluice_plugin import WARN, plugin

    @plugin(name="demo", version="0.1.0", kind="filter", reads=["severity", "service"])
    def keep(row):
        return row.severity >= WARN or row.service == "checkout"
"""

from .batch import Batch
from .column import Column
from .error import PluginError
from .outcome import Outcome, drop, quarantine
from .plugin import Plugin, plugin
from .row import Row

# OpenTelemetry's severity numbers; each stands for the first of its four.
TRACE = 1
DEBUG = 5
INFO = 9
WARN = 13
ERROR = 17
FATAL = 21

__all__ = [
    "Batch",
    "Column",
    "Outcome",
    "Plugin",
    "PluginError",
    "Row",
    "drop",
    "plugin",
    "quarantine",
    "TRACE",
    "DEBUG",
    "INFO",
    "WARN",
    "ERROR",
    "FATAL",
]
