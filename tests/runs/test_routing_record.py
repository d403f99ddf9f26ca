"""The routing record of a shard: what is stored, and what is read back."""

from pathlib import Path

from batch.planning.shared_ids import SharedIds
from batch.runs.layout import Layout
from batch.runs.routing_record import RoutingRecord, read_routing_record, write_routing_record
from batch.storage.checksums import Checksum

RECORD = RoutingRecord(
    routed={"small": 2, "large": 1},
    shares_answer_of={7: 3},
    duplicate_ids={9: "a.jsonl:10: id is that of a.jsonl:1 already"},
    parts={"small": Checksum(18230, 123456)},
    shared_ids=SharedIds(1, "id", "a.jsonl:9", "a.jsonl:2"),
)
STORED = (
    b'"routed":{"small":2,"large":1},"same_as":[[7,3]],"repeated":[[9,"a.jsonl:10: id is that of a.jsonl:1 already"]],'
    b'"parts":{"small":[18230,123456]},"shared_ids":[1,"id","a.jsonl:9","a.jsonl:2"]}'
)


def test_the_stored_text_keeps_its_keys(tmp_path: Path) -> None:
    """The file's path and keys are those of every release so far, because run directories outlive names in the code."""
    layout = Layout(tmp_path)
    write_routing_record(layout, 12, RECORD)
    stored = (tmp_path / "verdicts" / "00012.json").read_bytes()
    assert stored.startswith(b'{"crc":"')
    assert stored.partition(b'",')[2] == STORED
    assert read_routing_record(layout, 12) == RECORD


def test_a_record_of_an_older_version_is_read(tmp_path: Path) -> None:
    """A record of an older version has no checksum, no checksums of parts and no shared ids."""
    layout = Layout(tmp_path)
    layout.routing_record(0).parent.mkdir()
    layout.routing_record(0).write_bytes(b'{"routed":{"small":2},"same_as":[[1,0]],"repeated":[]}')
    assert read_routing_record(layout, 0) == RoutingRecord({"small": 2}, shares_answer_of={1: 0})


def test_a_shard_without_a_sound_record_is_not_routed(tmp_path: Path) -> None:
    """A record that is missing, damaged or in another shard's place reads as `None`."""
    layout = Layout(tmp_path)
    assert read_routing_record(layout, 0) is None
    write_routing_record(layout, 0, RECORD)
    layout.routing_record(0).rename(layout.routing_record(1))
    assert read_routing_record(layout, 1) is None
    write_routing_record(layout, 0, RECORD)
    damaged = layout.routing_record(0).read_bytes().replace(b"[7,3]", b"[7,4]")
    layout.routing_record(0).write_bytes(damaged)
    assert read_routing_record(layout, 0) is None
