"""Programs for people: the shell commands, mounting, the console."""
