"""Exit codes of every command; 0 is all done."""

SOME_FAILED = 1
NOT_STARTED = 2
INTERRUPTED = 130
