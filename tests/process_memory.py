"""Memory of a command and everything it started, from /proc."""

from pathlib import Path


def resident_of_session(leader: int) -> int:
    """Bytes resident in `leader` and all its descendants, also those whose parent is gone.

    Shared pages are shared out: each process counts its proportional part (PSS), so that the sum is what the machine
    holds.
    """
    parents: dict[int, int] = {}
    sessions: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.name)] = int(fields[1])
        sessions[int(entry.name)] = int(fields[3])
    family = {leader}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in family or sessions[pid] in family} - family
        grown = bool(more)
        family |= more
    return sum(_proportional(pid) for pid in family)


def _proportional(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0
