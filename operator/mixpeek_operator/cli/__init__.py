"""`mixpeekctl`: the command line. Starts in a blink, so nothing heavy is imported before a command runs."""
