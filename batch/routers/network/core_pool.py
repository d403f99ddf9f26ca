"""Work of a CPU's cores, a piece for each."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

CoreTask = Callable[[], None]


@contextmanager
def on_cores(cores: int, begin: CoreTask | None = None) -> Iterator[Callable[[Iterable[CoreTask]], None]]:
    """What runs pieces on so many threads; all have ended when the block ends.

    It takes them a chunk at a time and returns when the chunk before has ended: while one runs the next is made, and no
    more of them wait. It raises what a piece raised. Where the block ends by an exception, an interruption too, what
    was not begun by then is not run.

    Args:
        begin: called in each thread first.
    """
    running: list[Future[None]] = []

    def finish() -> None:
        for task in running:
            task.result()

    def run(tasks: Iterable[CoreTask]) -> None:
        nonlocal running
        ahead = [pool.submit(task) for task in tasks]
        finish()
        running = ahead

    with ThreadPoolExecutor(cores, initializer=begin) as pool:
        try:
            yield run
            finish()
        finally:
            pool.shutdown(cancel_futures=True)
