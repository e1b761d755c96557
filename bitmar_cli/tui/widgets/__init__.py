"""Panes: each draws a part of the state."""
