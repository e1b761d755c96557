"""The robots and their probabilities, after the step that is chosen."""

from __future__ import annotations

from bitmar_cli.answers import ranked
from bitmar_cli.render import cells, fit, safe
from bitmar_cli.tui.drawing import Line, num
from bitmar_cli.tui.widgets.lines import Pane, set_title


def short(name: str, width: int) -> str:
    """A name in exactly `width` columns; a long one loses its middle, since its ends tell robots apart."""
    name = safe(name)
    if cells(name) <= width or not name.isascii():
        return fit(name, width)
    head = (width - 1) // 2
    return name[:head] + "~" + name[len(name) - (width - 1 - head) :]


class Robots(Pane):
    """A bar for each robot; `*` marks the choice."""

    def build(self, width: int) -> list[Line]:
        """Bars, then threshold, lead and what is known of the calibration."""
        state, glyphs = self.bitmar.state, self.bitmar.glyphs
        ready, turn = state.ready, state.turn()
        if ready is None:
            calibrated = ""
        elif ready.temperature is not None:
            calibrated = f"  p calibrated (T={ready.temperature:.1f})" if width >= 40 else "  p calibrated"
        else:
            calibrated = "  p raw"
        set_title(self, f"Robots (2){calibrated}")
        probabilities = turn.probabilities(state.step) if turn is not None else {}
        if not probabilities:
            names = ready.fleet if ready else ()
            return [[(" " + fit(safe(name), width - 1), "")] for name in names]
        assert turn is not None
        chosen = turn.decision["robot"] if turn.decision else None
        suited = set(turn.decision["suited"]) if turn.decision else set()
        changes = turn.changes(state.step) if width >= 40 else {}
        pairs = ranked(probabilities, first=chosen)
        fixed = 1 + 1 + 5 + (6 if changes else 0)
        name_width = max(6, min(max(cells(safe(name)) for name, _ in pairs), width - fixed - 3, 24))
        bar_width = max(1, width - fixed - name_width)
        lines: list[Line] = []
        for name, p in pairs:
            style = ("warn" if turn.decision and turn.decision["abstained"] else "good") if name == chosen else ""
            mark = "*" if name == chosen else "+" if name in suited else " "
            line: Line = [(mark, style), (short(name, name_width), style), (" ", ""), (glyphs.bar(p, bar_width), style or "heat"), (f" {num(p):>4}", style)]
            if changes:
                line.append((f" {num(changes.get(name, 0.0), sign=True):>5}", "dim"))
            lines.append(line)
        facts = self._facts(width)
        return [*lines, *facts]

    def _facts(self, width: int) -> list[Line]:
        state = self.bitmar.state
        turn, ready = state.turn(), state.ready
        assert turn is not None
        facts = [] if state.step is None else [f"after step {state.step + 1}"]
        if ready is not None:
            facts.append(f"not sure below {num(ready.floor)}")
            if ready.ece is not None:
                facts.append(f"ECE {num(ready.ece)}" if width < 40 else f"ECE {num(ready.ece)} (held out)")
        if width >= 40 and turn.steps and state.step != 0:
            facts.append("change since step 1" if state.step is None else f"change since step {state.step}")
        if turn.decision and len(turn.decision["suited"]) > 1:
            facts.append("+ also suited")
        rows: list[Line] = []
        row = ""
        for fact in facts:
            if row and len(row) + 3 + len(fact) > width:
                rows.append([(row, "dim")])
                row = fact
            else:
                row = f"{row} {self.bitmar.glyphs.dot} {fact}" if row else fact
        return [*rows, [(fit(row, width, pad=False), "dim")]] if row else rows
