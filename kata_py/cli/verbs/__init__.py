"""The verbs of `kata-ctl`: each module is one, as the click command `command`, and holds its words alone."""
