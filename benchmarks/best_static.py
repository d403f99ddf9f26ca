"""The best fixed number in flight for each simulated server: `python -m benchmarks.best_static`.

It repeats the search behind tests/simulation/best_static.json, which the tests of adaptive concurrency compare against,
prints the best number of each case and its tokens per second, and writes the table. Run it after you change the
simulated servers, and review the difference.
"""

from tests.simulation.best_static import CASES, TABLE, search, written


def main() -> None:
    """Search every case, print what was found, and write the table."""
    table = {}
    for case in CASES:
        table[case] = best = search(case)
        span = f"{case.start:g} to {case.end:g} s"
        print(
            f"{case.name}, seed {case.seed}, {span}: {best.in_flight} in flight, {best.tokens_per_second:.0f} tokens/s"
        )
    TABLE.write_text(written(table))
    print(f"wrote {TABLE}")


if __name__ == "__main__":
    main()
