"""Runs tasks on a CPU's cores, a thread for each."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

CoreTask = Callable[[], None]


@contextmanager
def on_cores(cores: int, begin: CoreTask | None = None) -> Iterator[Callable[[Iterable[CoreTask]], None]]:
    """Yield a function that runs tasks on `cores` threads; all tasks have ended when the block ends.

    The function starts a chunk of tasks and returns when the previous chunk has ended. So the caller prepares the next
    chunk while one runs, and no more than that waits. The function raises what a task raised. If the block ends by an
    exception, also by an interruption, tasks that have not begun are not run.

    Args:
        begin: called once in each thread, before its first task.
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
