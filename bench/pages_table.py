"""Re-identification from evaluations of several seeds: ``python bench/pages_table.py OUT``.

OUT holds runs METHOD-SEED that ``bench/pages.sh WHAT OUT recall`` has evaluated. Prints recall@1 by
layout, the mean over seeds [95 % interval by Student], as a table.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from ecgfast.eval.label_efficiency import over_seeds


def main() -> None:
    cells: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    rows = []
    for path in sorted(Path(sys.argv[1]).glob("*-[0-9]/evaluation-test/metrics.json")):
        method = path.parent.parent.name.rpartition("-")[0]
        rows = json.loads(path.read_text())["layouts"]["rows"]
        for row in rows:
            if row["name"] == "recall_at_1_patient":
                cells[method][row["layout"]].append(value_of(row))
    if not rows:
        sys.exit(f"no evaluated runs in {sys.argv[1]}: bench/pages.sh WHAT {sys.argv[1]} recall")
    layouts = list(dict.fromkeys(row["layout"] for row in rows))
    row = rows[0]
    print(f"{row['n']} records of {row['patients']} patients, by chance {row['chance']:.3f}\n")
    print("| recall@1 | " + " | ".join(f"`{layout}`" for layout in layouts) + " |")
    print("|---|" + "---|" * len(layouts))
    for method, found in cells.items():
        print(f"| {method} | " + " | ".join(interval(found[layout]) for layout in layouts) + " |")


def value_of(row: dict[str, Any]) -> float:
    """Recall of one seed; where all draws of patients agree, which bounds nothing, that."""
    if row["estimate"] is not None:
        return float(row["estimate"])
    agreed = re.match(r"all draws give ([0-9.e-]+)", row["reason"])
    if agreed is None:
        sys.exit(f"no recall in layout {row['layout']}: {row['reason']}")
    return float(agreed[1])


def interval(values: list[float]) -> str:
    """Mean over seeds, and how far it may be off."""
    found = over_seeds(values, level=0.95)
    mean = f"{found['estimate']:.3f}"
    return mean if found["lo"] is None else f"{mean} [{found['lo']:.3f}, {found['hi']:.3f}]"


if __name__ == "__main__":
    main()
