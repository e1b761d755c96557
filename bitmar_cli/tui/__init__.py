"""The full-screen program.

How the data flows: the interface never touches the model; it sends small frozen requests (`protocol.py`) to a worker
process (`worker.py`, `serving.py`), which alone holds torch, the session and the memory. Replies come back through
`engine.py`, are folded into one plain state (`state.py`, `turns.py`) by the application's timer, and the timer then tells the
visible screen what changed. Screens and widgets only draw that state; keys, footer, help and palette all read `keys.py`.
"""
