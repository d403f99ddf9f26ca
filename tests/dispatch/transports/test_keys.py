"""An endpoint's key is read again when the server refuses it."""

import asyncio

import pytest

from batch.dispatch.transports.keys import EndpointKey
from batch.errors import SpecError


def test_a_command_that_fails_is_run_once_for_all_requests_that_were_refused() -> None:
    """When twenty requests are refused at once, the key command runs once more, for the first; its failure is raised
    there, and the other requests learn that there is no new key. The command may take seconds and ask for a login.
    """
    calls: list[str] = []

    def command(reference: str) -> str:
        calls.append(reference)
        if len(calls) > 1:
            raise SpecError("api_key_command get-token ended with status 1")
        return "first-token"

    async def main() -> list[bool | BaseException]:
        key = EndpointKey('command:["get-token"]', command)
        return await asyncio.gather(*(key.renew("first-token") for _ in range(20)), return_exceptions=True)

    outcomes = asyncio.run(main())
    assert len(calls) == 2
    assert [type(outcome) for outcome in outcomes] == [SpecError, *[bool] * 19]
    assert not any(outcome is True for outcome in outcomes)


def test_a_file_that_could_not_be_read_is_read_once_it_has_changed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A failure to read a key file counts only for that version of the file; a changed file is read again."""
    file = tmp_path_factory.mktemp("keys") / "key"
    file.write_text("old")

    def keys(reference: str) -> str:
        text = file.read_text()
        if text == "torn":
            raise SpecError("api_key_file gives more than a key")
        return text

    async def main() -> list[object]:
        key = EndpointKey(f"file:{file}", keys)
        file.write_text("torn")
        with pytest.raises(SpecError):
            await key.renew("old")
        file.write_text("a new key")
        return [await key.renew("old"), key.value]

    assert asyncio.run(main()) == [True, "a new key"]
