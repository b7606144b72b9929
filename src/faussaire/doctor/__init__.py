"""Whether training works, and why not: vital signs, verdicts, advice."""
