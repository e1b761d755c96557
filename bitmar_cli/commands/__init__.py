"""One file and one function a command: read options, call the core, draw its events."""
