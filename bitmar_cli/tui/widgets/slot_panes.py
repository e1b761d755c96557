"""What is known of one slot, and why the last answer came out as it did."""

from __future__ import annotations

import math

from bitmar_cli.render import safe
from bitmar_cli.tui.drawing import Line, num, squeeze, wrap
from bitmar_cli.tui.protocol import Rerun, SlotRow
from bitmar_cli.tui.widgets.lines import Pane, set_title
from bitmar_cli.tui.widgets.slots import Slots, age_days


def story_text(row: SlotRow) -> str:
    """A slot's story as plain text."""
    parts = [f"slot {row.slot}", f"task: {row.task}", f"robot: {row.robot}"]
    parts += [f"because: {row.because}"] if row.because else []
    parts += [f"site: {row.site}"] if row.site else []
    parts += [f"source: {row.source}", f"made: {row.made}", f"uses: {row.uses}"]
    return safe("\n".join(parts), newlines=True)


class SlotStory(Pane):
    """The chosen slot."""

    def build(self, width: int) -> list[Line]:
        """Story, provenance, rerun."""
        state, glyphs = self.bitmar.state, self.bitmar.glyphs
        slots = self.screen.query_one(Slots)
        row, slot = slots.row(), slots.slot()
        if row is None:
            set_title(self, f"Slot {slot}" if slot is not None else "Slot")
            memory = state.memory
            text = "empty" if slot is not None else "nothing is remembered yet: t teaches, or /teach in the chat" if memory is not None else ""
            return [[(part, "dim")] for part in wrap(text, width)]
        set_title(self, f"Slot {row.slot:02}{'  pinned' if row.pinned else ''}")
        lines: list[Line] = []

        def say(label: str, text: str, style: str = "") -> None:
            rows = wrap(text, width - 6)
            lines.append([(label.ljust(6), "dim"), (rows[0], style)])
            lines.extend([("      ", ""), (more, style)] for more in rows[1:])

        say("task", row.task)
        say("robot", row.robot, "good")
        if row.because:
            say("why", row.because)
        rerun = state.reruns.get(row.slot)
        lines += self._rerun(rerun, width) if rerun is not None else [[(squeeze("w: without it", width), "dim")]]
        if row.site:
            say("site", row.site)
        if row.image:
            say("photo", f"sha {row.image[:12]}")
        say("from", f"{row.source} {glyphs.dot} p then {num(row.confidence)}")
        say("made", f"{row.made.replace('T', ' ').removesuffix('Z').split('+')[0]} ({age_days(row)} days)")
        say("used", f"{row.uses} times" + (f", last {row.used[:10]}" if row.used else ""))
        at = next((i for i, other in enumerate(state.memory.rows) if other.slot == row.slot), None) if state.memory else None
        if at is not None:
            say("|v|", f"{math.sqrt(sum(v * v for v in state.values(at))):.2f}")
        weight = state.weights().get(row.slot)
        say("read", f"decides {num(weight)} of the last answer" if weight else "not by the last answer")
        return lines

    def _rerun(self, rerun: Rerun, width: int) -> list[Line]:
        arrow = self.bitmar.glyphs.arrow
        head = "without it (its own task, asked now):" if rerun.own else "without it (asked now):"
        lines: list[Line] = [[(part, "key")] for part in wrap(head, width)]
        present, masked = rerun.present["probabilities"], rerun.masked["probabilities"]
        for name in sorted(present, key=lambda n: -abs(present[n] - masked.get(n, 0.0)))[:3]:
            lines.append([(squeeze(f" {safe(name)} {num(present[name])} {arrow} {num(masked.get(name, 0.0))}", width), "")])
        if rerun.masked["robot"] != rerun.present["robot"]:
            lines += [[(part, "warn")] for part in wrap(f"the choice would be {safe(rerun.masked['robot'])}", width)]
        if rerun.nearest:
            near = "  ".join(f"#{slot:02} {num(value)}" for slot, value in rerun.nearest)
            lines += [[(part, "dim")] for part in wrap(f"nearest: {near}", width)]
        return lines


class WhyPane(Pane):
    """What the last answer read, what each thing was worth, what undo would do."""

    def build(self, width: int) -> list[Line]:
        """A few lines."""
        state, glyphs = self.bitmar.state, self.bitmar.glyphs
        set_title(self, "Why this answer")
        turn, memory = state.turn(), state.memory
        lines: list[Line] = []
        if turn is None or turn.note:
            lines.append([("nothing was asked yet; similarities are to the last task", "dim")])
        elif turn.memory:
            for slot in turn.memory[:2]:
                head = f"read #{slot['slot']:02} {num(slot['weight'])} "
                lines.append([(head, ""), (glyphs.bar(slot["weight"], max(4, width - len(head))), "heat")])
        else:
            lines.append([("the last answer read no slot: none of them applies", "dim")])
        why = state.why.get(turn.id) if turn is not None else None
        if why is not None:
            robot = why.present["robot"]
            parts = [f"{robot} {num(why.present['probabilities'][robot])}"]
            parts += [f"without {what} {num(answer['probabilities'].get(robot, 0.0))}" for what, answer in why.without]
            lines.append([(squeeze("reruns: " + f" {glyphs.dot} ".join(parts), width), "")])
        if memory is not None:
            place = (
                "every slot is pinned"
                if memory.next_slot < 0
                else f"#{memory.next_slot:02} " + ("(replaces the least recently used)" if memory.replaces else "(empty)")
            )
            undo = f" {glyphs.dot} undo: {memory.undo[0]}" if memory.undo else ""
            lines.append([(squeeze(f"next write: {place}{undo}", width), "dim")])
        return lines
