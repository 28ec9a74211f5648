"""What a plugin is, and how its functions become those of the contract."""

import inspect
import json
import re

from .batch import Batch
from .config import config_schema, read_config
from .error import PluginError
from .layout import Patterns, declared
from .outcome import Outcome
from .row import Row

_KINDS = ("mask", "sample", "enrich", "filter")
_FUNCTIONS = ("keep", "map", "process")
_SEMVER = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")


def plugin(*, name, version, kind, reads, writes=(), config=None, init=None):
    """Makes a plugin of a function, whose name says what it does; it may leave out arguments at the end.

    `keep(row, config, context)`: True keeps the row; False, `drop(…)` and `quarantine(…)` do not.
    `map(row, config, context)`: changes the row, and may answer as `keep` does.
    `process(batch, context, config)`: looks at whole columns and answers an `Outcome`, or nothing for "unchanged".

    `init(config)` checks the configuration, once, and may answer what the others get in its place.
    """
    return lambda function: Plugin(function, name, version, kind, reads, writes, config, init)


class Plugin:
    def __init__(self, function, name, version, kind, reads, writes, config, init):
        if not isinstance(name, str) or not name:
            raise PluginError("a plugin needs a `name`")
        if not isinstance(version, str) or not _SEMVER.fullmatch(version):
            raise PluginError('a plugin needs a `version` such as "0.1.0"')
        if kind not in _KINDS:
            raise PluginError(f"`kind` must be one of {', '.join(_KINDS)}")
        if function.__name__ not in _FUNCTIONS:
            raise PluginError(f"the function must be called one of {', '.join(_FUNCTIONS)}, not `{function.__name__}`")
        self.name = name
        self.version = version
        self.kind = kind
        self.writes = declared(writes, "writes")
        # Rows that a `map` does not change keep what they had, so it has to be there.
        needed = self.writes if function.__name__ == "map" else []
        self.reads = list(dict.fromkeys(declared(reads, "reads") + needed))
        if not self.reads:
            raise PluginError("`reads` names no column: a plugin sees only what it declares")
        self.function = function
        self._schema = config_schema(config)
        self._init = init
        self._config = None
        self._patterns = Patterns(self.reads), Patterns(self.writes)
        parameters = inspect.signature(function).parameters.values()
        takes_all = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
        self._arity = 3 if takes_all else len(parameters)
        if not 1 <= self._arity <= 3:
            raise PluginError(f"`{function.__name__}` takes one to three arguments")

    def __call__(self, *arguments):
        return self.function(*arguments)

    @property
    def config_schema(self):
        return "" if self._schema is None else json.dumps(self._schema)

    def init(self, text):
        """Takes the configuration as JSON text."""
        config = read_config(self._schema, text)
        other = self._init(config) if self._init else None
        self._config = config if other is None else other

    def process(self, data, context):
        """The outcome of one batch of bytes, as `Outcome.encode` has it."""
        if self._config is None:
            raise PluginError("process before init")
        reads, writes = self._patterns
        batch = Batch(data, reads)
        if self.function.__name__ == "process":
            outcome = self.function(*(batch, context, self._config)[: self._arity])
            outcome = Outcome(batch) if outcome is None else outcome
            if not isinstance(outcome, Outcome):
                raise PluginError("`process` must answer an Outcome, or nothing")
        else:
            outcome = self._rows(batch, context, writes)
        return outcome.encode(self.kind, writes)

    def _rows(self, batch, context, writes):
        function = self.function
        changes = function.__name__ == "map"
        row = Row(batch, writes if changes else Patterns([]))
        rest = (self._config, context)[: self._arity - 1]
        outcome = Outcome(batch)
        for index in range(batch.rows):
            row.index = index
            decision = function(row, *rest)
            if decision is not True and not (changes and decision is None):
                outcome.decide(index, decision)
        return row.finish(outcome)
