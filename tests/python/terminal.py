"""Sits at the prompt of `sluice sql` as a person does: in a terminal of its own, key by key. Prints what it saw, as JSON.

Usage: terminal.py URL HOME COMMAND...
"""

import fcntl
import json
import os
import pty
import re
import select
import struct
import sys
import termios
import time
import urllib.request

url, home, command = sys.argv[1], sys.argv[2], sys.argv[3:]
# far above what anything takes: whoever waits so long waits for something that does not come
PATIENCE_S = 60
ROWS, COLUMNS = 12, 100
TAB, ENTER, UP, CTRL_C, CTRL_D = "\t", "\r", "\x1b[A", "\x03", "\x04"
ENDLESS = "SELECT count(*) FROM range(100000000000) a WHERE a.value % 7 = 3;"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")
seen = {}


class Terminal:
    """One start of the shell. What it shows is read up to what is waited for, and forgotten then."""

    def __init__(self):
        self.shown = ""
        self.process, self.screen = pty.fork()
        if self.process == 0:
            settings = {"HOME": home, "TERM": "xterm", "PAGER": "sed 's/^/paged /'", "LANG": "C.UTF-8"}
            os.execve(command[0], command, {**os.environ, **settings, "XDG_STATE_HOME": "", "SLUICE_PAGER": "sed 's/^/paged /'"})
        fcntl.ioctl(self.screen, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))

    def press(self, keys):
        os.write(self.screen, keys.encode())

    def line(self, text):
        self.press(text + ENTER)

    def look(self, seconds):
        """What is new on the screen within this time; false if nothing is, or never will be."""
        ready, _, _ = select.select([self.screen], [], [], seconds)
        if not ready:
            return False
        try:
            new = os.read(self.screen, 65536)
        except OSError:
            return False
        self.shown += ESCAPES.sub("", new.decode(errors="replace"))
        return bool(new)

    def until(self, text, meanwhile=None):
        """What was shown before `text`. `meanwhile` is done again and again until that comes."""
        late = time.monotonic() + PATIENCE_S
        while text not in self.shown:
            if time.monotonic() > late:
                sys.exit(f"{text!r} was not shown, but {self.shown!r}")
            if not self.look(0.25 if meanwhile else 1) and meanwhile:
                meanwhile()
        before, _, self.shown = self.shown.partition(text)
        return before

    def ask(self, question, answer):
        self.line(question)
        before = self.until(answer)
        self.until("sluice> ")
        return before

    def end(self):
        """How it ended, once it has."""
        while self.look(PATIENCE_S):
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


def running():
    with urllib.request.urlopen(f"{url}/metrics") as metrics:
        lines = metrics.read().decode().splitlines()
    (line,) = [line for line in lines if line.startswith("sluice_query_running ")]
    return float(line.split()[-1])


def wait_for(condition, what):
    late = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > late:
            sys.exit(f"{what} did not come")


shell = Terminal()
shell.until("\\? for help")
shell.until("sluice> ")

# a statement over several lines, and an answer below it
shell.line("SELECT 40")
shell.until("...> ")
seen["lines"] = "answer" in shell.ask("+ 2 AS answer;", "42")

# names are learned beside the prompt, so the key is pressed until they are there
shell.press("SELECT count(*) AS found FROM service_r")
shell.until("service_red", meanwhile=lambda: shell.press(TAB))
seen["completed"] = "found" in shell.ask(";", "1 row")
shell.press("SELECT histogram_quan")
shell.until("histogram_quantile", meanwhile=lambda: shell.press(TAB))

# a line that was begun is gone, and so are the lines above it
shell.press(CTRL_C)
shell.until("sluice> ")
shell.line("SELECT 'left over")
shell.until("...> ")
shell.press("no sql at all")
shell.press(CTRL_C)
shell.until("sluice> ")
seen["cleared"] = "error" not in shell.ask("SELECT 6 * 9 AS product;", "54")

# a mistake is told with a hint and its place, and the shell goes on
mistake = shell.ask("SELECT bdy FROM logs;", "did you mean `body`?")
seen["mistake"] = "there is no column `bdy`" in mistake

# a running query ends here and on the server
idle = running()
shell.line(ENDLESS)
wait_for(lambda: running() > idle, "the query")
shell.press(CTRL_C)
shell.until("ended")
shell.until("sluice> ")
wait_for(lambda: running() <= idle, "the end of the query")
seen["ended"] = True

shell.ask("\\timing", "timing is on")
shell.line("SELECT 7 AS n;")
shell.until("time: ")
seen["time"] = bool(re.fullmatch(r"[0-9]+\.[0-9]{3}", shell.until(" ms")))
shell.until("sluice> ")

# what is longer than the screen goes to the pager, and only that
paged = shell.ask("SELECT value FROM range(40);", "40 rows")
seen["paged"] = [paged.count("paged "), "39" in paged]
shell.ask("\\pager off", "the pager is off")
seen["not paged"] = shell.ask("SELECT value FROM range(40);", "40 rows").count("paged ")
shell.ask("\\x on", "expanded display is on")
shell.ask("SELECT 'kept ' || 'for later' AS note;", "kept for later")
shell.press(CTRL_D)
seen["left"] = shell.end()

# another start knows the last question, whole, and the ones before
shell = Terminal()
shell.until("sluice> ")
shell.press(UP)
shell.until("AS note;")
shell.press(ENTER)
shell.until("kept for later")
shell.until("sluice> ")
shell.press(UP + UP)
shell.until("range(40);")
shell.press(CTRL_C)
shell.until("sluice> ")
shell.press("\\q" + ENTER)
seen["quit"] = shell.end()

print(json.dumps(seen))
