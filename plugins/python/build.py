"""Makes a component of a plugin in Python. Called in the plugin's folder, by the Python that has componentize-py:

    .sluice/venv/bin/python .sluice/sdk/build.py [--entry plugin.py] [--out dist/<name>.wasm]

BUILD.md says what it needs and how it fails.
"""

import argparse
import importlib.util
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

SDK = Path(__file__).resolve().parent
WORLD = "pure"
WORK = Path(".sluice/build/src")
EXIT_MISTAKE = 1
EXIT_TOOLS = 3
# Folders of a plugin that are not part of it.
NOT_SOURCES = ("tests", "fixtures", "dist", "venv")
# The module that componentize-py is given; its name must differ from those of the world and of the plugin.
ENTRY = """import {module} as plugin_module
from sluice_plugin.component import guest_of

Guest = guest_of(plugin_module)
"""


class BuildError(Exception):
    def __init__(self, message, exit_code=EXIT_MISTAKE):
        super().__init__(message)
        self.exit_code = exit_code


def main():
    parser = argparse.ArgumentParser(description="Make a component of a Sluice plugin in Python.")
    parser.add_argument("--entry", default="plugin.py", type=Path, help="file with the plugin (plugin.py)")
    parser.add_argument("--out", type=Path, help="where the component goes (dist/<name>.wasm)")
    options = parser.parse_args()
    if not options.entry.is_file():
        raise BuildError(f"no {options.entry} here; run this in the folder of a plugin")
    if importlib.util.find_spec("componentize_py") is None:
        raise BuildError(f"componentize-py is not installed; run: {sys.executable} -m pip install -r requirements.txt", EXIT_TOOLS)
    plugin = described(options.entry)
    out = options.out or Path("dist", f"{plugin.name}.wasm")
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    componentize(staged(options.entry, WORK), part)
    # A reader sees the old component or the new one.
    part.replace(out)
    print(f"{plugin.name} {plugin.version}: {out}, {out.stat().st_size / 1e6:.1f} MB")


def described(entry):
    """Runs the definition here first, where an error has a text and a place."""
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(entry.parent.resolve()), str(SDK)]
    from sluice_plugin import Plugin, PluginError

    try:
        module = importlib.import_module(entry.stem)
    except PluginError as error:
        raise BuildError(f"{entry}: {error}") from None
    except Exception:
        raise BuildError(f"{entry}:\n{traceback.format_exc()}") from None
    plugins = [value for value in vars(module).values() if isinstance(value, Plugin)]
    if len(plugins) != 1:
        raise BuildError(f"{entry} has {len(plugins)} functions with @plugin(…); it must have one")
    return plugins[0]


def staged(entry, target):
    """A folder with nothing but what belongs into the component."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    skipped = shutil.ignore_patterns("__pycache__", "testing.py")
    shutil.copytree(SDK / "sluice_plugin", target / "sluice_plugin", ignore=skipped)
    root = entry.parent
    for path in root.glob("*.py"):
        shutil.copy(path, target)
    for package in root.glob("*/__init__.py"):
        folder = package.parent
        if folder.name not in NOT_SOURCES and not folder.name.startswith("."):
            shutil.copytree(folder, target / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    (target / "sluice_entry.py").write_text(ENTRY.format(module=entry.stem), "utf-8")
    return target


def componentize(sources, out):
    tool = Path(sys.executable).parent / "componentize-py"
    command = [tool, "--quiet", "--wit-path", SDK / "wit" / "plugin.wit", "--world", WORLD, "componentize", "--stub-wasi"]
    # Nothing but the plugin's sources and what is installed beside the tool.
    result = subprocess.run([*command, "--python-path", sources, "sluice_entry", "--output", out], capture_output=True, text=True)
    if result.returncode != 0:
        raise BuildError(f"componentize-py failed:\n{result.stderr.strip() or result.stdout.strip()}")


if __name__ == "__main__":
    try:
        main()
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
