"""Records a command in a real terminal (tmux) as an animated SVG.

    python docs/record.py docs/recover.svg pcloud recover demo --yes

Frames are the terminal's own cells with their colours; rich draws them. Needs tmux.
"""

from __future__ import annotations

import io
import shlex
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS, ROWS = 100, 34
EVERY_S = 0.5
LONGEST_S = 900
FRAMES = 14
HOLD = 5
"""How many times longer than the others the last frame is shown."""


def record(argv: list[str]) -> list[str]:
    """What the terminal showed, every half second until the command ended, as text with ANSI colours."""
    session = f"record-{time.monotonic_ns()}"
    done = f"{shlex.join(argv)}; tmux wait-for -S {session}; sleep 5"
    subprocess.run(["tmux", "new-session", "-d", "-s", session, "-x", str(COLUMNS), "-y", str(ROWS), done], check=True)
    waiting = subprocess.Popen(["tmux", "wait-for", session])
    frames: list[str] = []
    deadline = time.monotonic() + LONGEST_S
    while time.monotonic() < deadline:
        ended = waiting.poll() is not None
        shown = subprocess.run(
            ["tmux", "capture-pane", "-e", "-p", "-t", session], check=True, capture_output=True, text=True
        )
        if not frames or frames[-1] != shown.stdout:
            frames.append(shown.stdout)
        if ended:
            break
        time.sleep(EVERY_S)
    subprocess.run(["tmux", "kill-session", "-t", session], check=False)
    return frames


def draw(frame: str, number: int, title: str) -> str:
    console = Console(
        record=True, width=COLUMNS, height=ROWS, file=io.StringIO(), force_terminal=True, legacy_windows=False
    )
    console.print(Text.from_ansi(frame), end="", soft_wrap=False)
    return console.export_svg(title=title, unique_id=f"f{number}")


def animate(frames: list[str], title: str) -> str:
    """One SVG that shows the frames one after the other, for ever."""
    step = max(1, len(frames) // FRAMES)
    chosen = [*frames[:-1:step], frames[-1]]
    drawn = [draw(f, n, title) for n, f in enumerate(chosen)]
    beats = len(chosen) - 1 + HOLD
    head = drawn[0][: drawn[0].index(">") + 1]
    box = head.split('viewBox="')[1].split('"')[0]
    css, body = [], []
    for n, svg in enumerate(drawn):
        start, end = n / beats * 100, (n + (HOLD if n == len(chosen) - 1 else 1)) / beats * 100
        after = "visible" if end >= 100 else "hidden"
        css.append(
            f"@keyframes k{n} {{ 0%,{start:.3f}% {{visibility:hidden}} "
            f"{start + 0.001:.3f}%,{end - 0.001:.3f}% {{visibility:visible}} {end:.3f}%,100% {{visibility:{after}}} }}"
        )
        css.append(f".s{n} {{ animation: k{n} {beats}s infinite step-end }}")
        body.append(f'<g class="s{n}">{svg}</g>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}"><style>{"".join(css)}</style>{"".join(body)}</svg>\n'
    )


def main() -> None:
    target, *argv = sys.argv[1:]
    frames = record(argv)
    Path(target).write_text(animate(frames, shlex.join([Path(argv[0]).name, *argv[1:]])))
    sys.stdout.write(f"{len(frames)} frames to {target}\n")


if __name__ == "__main__":
    main()
