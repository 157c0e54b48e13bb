"""What is small should cost little: importing the package, and steps of a frame. Targets: 150 ms for the import, 1 ms for a step.

Run with an interpreter that has the package: ``python python-bindings/benches/small.py``.
"""

import statistics
import subprocess
import sys
import time

import windrow
from windrow import col

IMPORT = "import time; start = time.perf_counter(); import windrow; print(time.perf_counter() - start)"


def seconds_of_import() -> float:
    """Of one fresh interpreter."""
    return float(subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True).stdout)


def seconds_of_steps(frame: windrow.DataFrame, rounds: int) -> float:
    """Of one step, over rounds of three."""
    start = time.perf_counter()
    for _ in range(rounds):
        frame.filter(col("n") > 1).with_columns(m=col("n") * 2).select("m")
    return (time.perf_counter() - start) / (3 * rounds)


def main() -> None:
    """Prints medians and the largest of five."""
    imports = [seconds_of_import() for _ in range(5)]
    print(f"import: median {statistics.median(imports) * 1e3:.0f} ms, most {max(imports) * 1e3:.0f} ms (target 150 ms)")
    with windrow.connect(slots=1) as client:
        frame = client.from_dict({"n": [1, 2, 3]})
        steps = [seconds_of_steps(frame, 300) for _ in range(5)]
    print(f"a step: median {statistics.median(steps) * 1e3:.3f} ms, most {max(steps) * 1e3:.3f} ms (target 1 ms)")


if __name__ == "__main__":
    main()
