"""`make bench`: the figures that DESIGN.md limits, each beside its limit. Exits 1 when one is missed."""

import sys

from rich.console import Console

from loadtests import checkpoints, first_token, hub, page, writer

PARTS = {
    "first_token": first_token.run,
    "writer": writer.run,
    "hub": hub.run,
    "checkpoints": checkpoints.run,
    "page": page.run,
}


def main() -> int:
    console = Console(width=140, highlight=False)
    chosen = sys.argv[1:] or list(PARTS)
    if unknown := [name for name in chosen if name not in PARTS]:
        console.print(f"There is no benchmark {', '.join(unknown)}; there are: {', '.join(PARTS)}")
        return 2
    met = [PARTS[name](console) for name in chosen]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
