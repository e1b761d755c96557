"""Every command by name: the registry of keys as entries of the command palette."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from textual.command import DiscoveryHit, Hit, Hits, Provider

from bitmar_cli.tui import keys

if TYPE_CHECKING:
    from bitmar_cli.tui.app import BitMarApp


class Actions(Provider):
    """Those of the screen in front first. An action of another screen opens that screen."""

    def _entries(self) -> Iterator[tuple[str, str, Any]]:
        app: BitMarApp = self.app  # type: ignore[assignment]
        here = app.place
        for action in sorted((a for a in keys.ACTIONS if a.palette), key=lambda a: (a.place != here, a.place != "app")):
            title = f"{keys.PLACES[action.place]}: {action.label}" if action.place != "app" else action.label
            help = action.help + (f" ({action.shown})" if action.keys else "")
            yield title, help, partial(app.perform, action.name, action.place)

    async def discover(self) -> Hits:
        """All, before anything is typed."""
        for title, help, run in self._entries():
            yield DiscoveryHit(title, run, help=help)

    async def search(self, query: str) -> Hits:
        """Those whose name or help fits."""
        matcher = self.matcher(query)
        for title, help, run in self._entries():
            score = max(matcher.match(title), matcher.match(help) * 0.6)
            if score > 0:
                yield Hit(score, matcher.highlight(title), run, help=help)
