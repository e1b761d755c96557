"""The memory beside the conversation: what was read, where the next case would go, and where there is room the slots themselves."""

from __future__ import annotations

from bitmar_cli.render import fit, safe
from bitmar_cli.tui.drawing import Line, num
from bitmar_cli.tui.widgets.lines import Pane, set_title
from bitmar_cli.tui.widgets.robots import short
from bitmar_cli.tui.widgets.slots import ordered


class MemoryStrip(Pane):
    """A few lines about the memory."""

    def build(self, width: int) -> list[Line]:
        """Read, next, and slots."""
        state, glyphs = self.bitmar.state, self.bitmar.glyphs
        memory, turn = state.memory, state.turn()
        if memory is None:
            off = state.ready is not None and not state.ready.memory
            set_title(self, "Memory (3)")
            return [[("off" if off else "", "dim")]]
        pinned = sum(row.pinned for row in memory.rows)
        set_title(self, f"Memory (3)  {len(memory.rows)}/{memory.slots}" + ("  frozen" if state.frozen else ""))
        read = " ".join(f"#{slot['slot']:02} {num(slot['weight'])}" for slot in turn.memory) if turn is not None else ""
        place = "full: all pinned" if memory.next_slot < 0 else f"#{memory.next_slot:02} " + ("replaces" if memory.replaces else "empty")
        lines: list[Line] = [
            [
                ("read ", "dim"),
                (fit(read or ("nothing that applies" if turn is not None and turn.steps else "nothing yet"), width - 5, pad=False), "heat" if read else "dim"),
            ],
            [("next ", "dim"), (place, ""), (f" {glyphs.dot} {pinned} pinned" if pinned else "", "dim")],
        ]
        room = self.size.height - len(lines)
        rows = ordered(state, "similarity")[: max(0, room)]
        wide = width >= 50
        for at, row in rows:
            mark = "P" if row.pinned else " "
            near = state.nearness.similarity.get(row.slot) if state.nearness else None
            head = f"#{row.slot:02} {num(near, sign=True) if near is not None else '    ':>4} {mark} "
            name = short(row.robot, 14 if width >= 40 else width - len(head) - 1)
            rest = max(0, width - len(head) - 15)
            tail = glyphs.heat(state.values(at), memory.scale, rest) if wide else fit(safe(row.task), rest) if width >= 40 else ""
            lines.append([(head, "dim"), (name + " ", ""), (tail, "heat" if wide else "dim")])
        return lines
