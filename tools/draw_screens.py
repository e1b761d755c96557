"""Pictures of the full-screen program for the README: the shipped model, a sample photo, a memory of its own, no terminal.

python tools/draw_screens.py [--out docs/screens] [--run DIR]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

TASK = "Carry a first aid kit up the scree to a hurt walker"
LATER = "Take bandages over the boulders to someone who fell"
SIZE = (120, 36)


async def draw(out: Path, run: Path | None) -> None:
    """Ask, teach, ask again, and save each screen as SVG."""
    from bitmar_cli.tui.app import BitMarApp
    from bitmar_cli.tui.engine import Engine
    from bitmar_cli.tui.protocol import Opening

    app = BitMarApp(Engine(Opening()), image=str(ROOT / "assets" / "samples" / "boulder_slope.jpg"), run=run)
    async with app.run_test(size=SIZE) as pilot:

        async def until(holds) -> None:
            end = time.monotonic() + 120
            while not holds():
                if time.monotonic() > end:
                    sys.exit(f"still waiting after two minutes; the program says: {app.state.said}")
                await pilot.pause(0.1)
            await pilot.pause(0.3)

        async def say(text: str) -> None:
            app.screen.query_one("TaskInput").put(text)  # type: ignore[attr-defined]
            await pilot.press("enter")

        await until(lambda: app.state.status == "ready" and app.state.pictures)
        await say(TASK)
        await until(lambda: app.state.last().status == "done")
        await say("/teach Robot with Legs because of the scree")
        await until(lambda: app.state.memory is not None and app.state.memory.rows)
        await say(LATER)
        await until(lambda: len(app.state.turns) == 2 and app.state.last().status == "done")
        for name, keys in (("chat", ()), ("image", ("f3",)), ("steps", ("f4",)), ("memory", ("f2", "w")), ("training", ("f5",))):
            for key in keys:
                await pilot.press(key)
                await pilot.pause(0.5)
            if name == "memory":
                await until(lambda: app.state.reruns)
            (out / f"{name}.svg").write_text(app.export_screenshot(title="BitMar"), encoding="utf-8")
            print(out / f"{name}.svg")


def main() -> None:
    """Read the options and draw."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, default=ROOT / "docs" / "screens")
    options.add_argument("--run", type=Path, help="run folder for the training monitor")
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("COLORTERM", "truecolor")
    with tempfile.TemporaryDirectory() as home:
        os.environ["BITMAR_HOME"] = home
        asyncio.run(draw(chosen.out, chosen.run))


if __name__ == "__main__":
    main()
