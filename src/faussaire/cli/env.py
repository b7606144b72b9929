"""`faussaire env`: versions and machine, for bug reports."""

from __future__ import annotations

from dataclasses import dataclass

from faussaire.cli.console import out, parse, print_json
from faussaire.core.run import environment


@dataclass(frozen=True, kw_only=True)
class Options:
    """Show versions, machine, and what training would use.

    Attributes:
        json: print JSON.
    """

    json: bool = False


def run(arguments: list[str]) -> int:
    """Print it."""
    options = parse("env", Options, arguments)
    from faussaire.core.device import Device, cpu_has_bfloat16, has_compiler
    from faussaire.data.cache import cache_dir

    facts = {
        key: value for key, value in environment().items() if key not in ("command", "started")
    }
    facts["would_use"] = Device.choose().describe()
    facts["cpu_bfloat16"] = cpu_has_bfloat16()
    facts["compiler"] = has_compiler()
    facts["cache"] = str(cache_dir())
    if options.json:
        print_json(facts)
    else:
        for key, value in facts.items():
            out.print(f"{key:<14} {value}", markup=False)
    return 0
