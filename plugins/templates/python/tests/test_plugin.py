import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(FOLDER), str(FOLDER / ".sluice" / "sdk")]

from plugin import keep  # noqa: E402
from sluice_plugin.testing import fixture_tests  # noqa: E402

load_tests = fixture_tests(keep, FOLDER / "fixtures")
