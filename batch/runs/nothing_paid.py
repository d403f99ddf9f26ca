"""Whether a run has paid for anything, which would be lost with it."""

from batch.runs.journal.replay import Replay, replay
from batch.runs.layout import Layout


def nothing_paid(layout: Layout) -> bool:
    """Has no row of this run been answered, and no attempt possibly been billed?

    A run whose every row was refused (for an unsupported parameter, say) is no loss. So a user who has mended the job
    need not ask for a new run. If a journal is damaged or gone, that cannot be known, and the answer is no.

    Raises:
        StorageError: a journal cannot be read.
    """
    if not layout.anything_sent():
        return True
    shards = {path.stem for path in layout.answered(0).parent.glob("*.json")}
    folders = [folder for folder in layout.journals.iterdir() if folder.is_dir()] if layout.journals.is_dir() else []
    if not shards <= {folder.name for folder in folders}:
        return False
    journals = [path for folder in folders for path in folder.iterdir()]
    return bool(journals) and all(_is_worthless(replay(path)) for path in journals)


def _is_worthless(journal: Replay) -> bool:
    paid = journal.ok or journal.lost or journal.billed or journal.unpriced
    return not (paid or journal.ambiguous or journal.notes)
