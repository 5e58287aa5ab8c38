"""The guided way on the screen: one page for each step, drawn from ``tui.wizard`` and loaded when it is first asked for."""
