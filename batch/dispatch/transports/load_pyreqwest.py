"""Imports pyreqwest without the crash that an import in a short-lived thread would cause."""

import threading

_is_loaded = threading.Event()


def load_pyreqwest() -> None:
    """Import pyreqwest in a thread that never ends; return once it is imported.

    pyreqwest's allocator takes the importing thread for the main thread: once that thread has ended, the next client
    built in another thread crashes the process (pyreqwest 0.15.1).
    """
    if _is_loaded.is_set():
        return

    def load() -> None:
        import pyreqwest.client  # noqa: F401

        _is_loaded.set()
        threading.Event().wait()

    threading.Thread(target=load, name="pyreqwest", daemon=True).start()
    _is_loaded.wait()
