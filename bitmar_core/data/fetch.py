"""One file from one web address, so that it is whole or not there: resumed, checked, retried with patience.

What was received lies in `NAME.part`; `NAME.part.json` beside it says which file it is a part of. Only a file of the right size and
digest gets its real name. Requests go through `urllib.request`: redirects, proxies and TLS are then the standard library's, at no new
dependency. It opens a connection for each file, a round trip that is hidden by fetching several files at once.
"""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import json
import os
import random
import re
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitmar_core.errors import BitMarError, MissingError, TryAgainError, UsageError

CHUNK = 1 << 17
"""Bytes that are read at once; the cancel flag is looked at in between."""

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP answers that another try may mend."""


class DiskError(BitMarError):
    """The disk does not take a file: no other file will fare better."""


class Cancelled(Exception):
    """The cancel flag was set. What was received is kept for the next run."""


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How long a server is given. Seconds."""

    attempts: int = 6
    """Tries in a row that bring no new byte."""
    first_wait: float = 1.0
    """Wait after the first failure; it doubles with each further one."""
    longest_wait: float = 60.0
    longest_asked: float = 600.0
    """The longest Retry-After that is waited for."""
    timeout: float = 30.0
    """Silence on a connection after which it counts as lost."""

    def wait(self, failures: int) -> float:
        """Seconds before the next try, with up to a quarter less so that several workers do not come back at once."""
        return min(self.longest_wait, self.first_wait * 2.0 ** (failures - 1)) * random.uniform(0.75, 1.0)


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file to fetch."""

    url: str
    path: Path
    size: int | None = None
    """Bytes, where known beforehand."""
    sha256: str | None = None
    check: Callable[[Path], str | None] | None = None
    """Looks into the received file; gives what is wrong with it, or None."""


class Pace:
    """One pause for all workers: what a server asks of one of them holds for the others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0

    def pause(self, seconds: float) -> None:
        """Nobody asks again before `seconds` have passed."""
        with self._lock:
            self._until = max(self._until, time.monotonic() + seconds)

    def wait(self, cancel: threading.Event) -> None:
        """Sleep until the pause is over. Raises Cancelled."""
        while True:
            with self._lock:
                left = self._until - time.monotonic()
            if cancel.is_set():
                raise Cancelled
            if left <= 0:
                return
            cancel.wait(left)


def check_url(url: str) -> str:
    """`url` without a slash at its end. Raises UsageError for anything but a plain http or https address that a path can be put behind."""
    try:
        parts = urllib.parse.urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or any(c.isspace() or not c.isprintable() for c in url):
        raise UsageError(f"{url!r} is no web address; give one that begins with http:// or https://")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise UsageError("the address of a mirror has no user name, ? or #; give the part that COCO's paths are put behind")
    return url.rstrip("/")


def shown_url(url: str) -> str:
    """`url` without user name, password and query, which may hold secrets."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, in either of its two forms (RFC 9110, 10.2.3); None where it says nothing."""
    if not header:
        return None
    if re.fullmatch(r"\d{1,9}", header.strip()):
        return float(header)
    try:
        when = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, when.timestamp() - time.time())


def _opener() -> urllib.request.OpenerDirector:
    """Web addresses only: no file:, ftp: or data: is ever opened, whatever a redirect says."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def request(url: str, headers: dict[str, str], timeout: float) -> Any:
    """Open `url`; gives a response whose `read1` yields the body. Raises what urllib raises."""
    sent = {"User-Agent": "bitmar", "Accept-Encoding": "identity", **headers}
    return _opener().open(urllib.request.Request(url, headers=sent), timeout=timeout)


class Trouble(Exception):
    """A failure that another try may mend. `asked`: seconds that the server wants left alone."""

    def __init__(self, reason: str, asked: float | None = None) -> None:
        super().__init__(reason)
        self.asked = asked


def reason_of(error: BaseException) -> str:
    """A failure of the network in a few words."""
    cause = error.reason if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException) else error
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, (http.client.IncompleteRead, http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)):
        return "the connection was cut"
    if isinstance(cause, ConnectionRefusedError):
        return "the connection was refused"
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)


def fetch(
    remote: Remote,
    *,
    cancel: threading.Event,
    retries: Retries | None = None,
    pace: Pace | None = None,
    there: Callable[[int], None] = lambda count: None,
    received: Callable[[int], None] = lambda count: None,
    retrying: Callable[[str, float], None] = lambda reason, seconds: None,
    sync: bool = False,
) -> None:
    """Bring `remote` to its path.

    Args:
        cancel: stops between two chunks and during waits.
        there: told once how many bytes an earlier run has left.
        received: told of bytes as they are written; a negative number takes back what was dropped.
        retrying: told the reason and the wait before each new try.
        sync: force the file to disk before it gets its name.

    Raises:
        Cancelled: the flag was set.
        MissingError: the server does not have the file, or will not give it.
        TryAgainError: the network or the server failed too often.
        BitMarError: the server's file is another one than expected, or the disk cannot take it.
    """
    part = Part(remote)
    there(part.count)
    try:
        _fetch(remote, part, cancel, retries or Retries(), pace or Pace(), received, retrying, sync)
    finally:
        part.close()


def _fetch(
    remote: Remote,
    part: Part,
    cancel: threading.Event,
    retries: Retries,
    pace: Pace,
    received: Callable[[int], None],
    retrying: Callable[[str, float], None],
    sync: bool,
) -> None:
    failures, spoiled, most = 0, False, part.count
    while True:
        pace.wait(cancel)
        try:
            if remote.size is None or part.count != remote.size:
                _receive(remote, part, cancel, retries, received)
            problem = part.problem()
            if problem is None:
                part.finish(sync=sync)
                return
            part.drop(received)
            # A part that was put together from several answers may be at fault; a file that came in one piece twice is the server's.
            if spoiled:
                raise BitMarError(f"{shown_url(remote.url)} is not the expected file ({problem}); use another mirror")
            spoiled, most = True, 0
            retrying(problem, 0.0)
        except Trouble as trouble:
            failures = 1 if part.count > most else failures + 1
            most = max(most, part.count)
            if failures >= retries.attempts:
                raise TryAgainError(f"{shown_url(remote.url)}: {trouble} ({failures} tries); run the same command again to go on from here") from trouble
            if trouble.asked is not None and trouble.asked > retries.longest_asked:
                raise TryAgainError(f"{shown_url(remote.url)}: the server asks to wait {trouble.asked:.0f} s; run the same command again then") from trouble
            seconds = retries.wait(failures) if trouble.asked is None else trouble.asked
            retrying(str(trouble), seconds)
            if trouble.asked is not None:
                pace.pause(seconds)
            elif cancel.wait(seconds):
                raise Cancelled from None


def _receive(remote: Remote, part: Part, cancel: threading.Event, retries: Retries, received: Callable[[int], None]) -> None:
    """One request, read to its end."""
    headers = part.range_headers()
    if not headers:  # nothing says that the rest would fit to this part
        part.drop(received)
    try:
        with request(remote.url, headers, retries.timeout) as response:
            total = _begin(remote, part, response, received)
            while True:
                data = response.read1(CHUNK)
                if cancel.is_set():  # looked at before writing: by now another run may own the part
                    raise Cancelled
                if not data:
                    break
                part.write(data)
                received(len(data))
            if total is not None and part.count < total:
                raise Trouble(f"the connection was cut after {part.count} of {total} bytes")
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:  # the part is as long as the file, or longer
                if error.headers.get("Content-Range") == f"bytes */{part.count}":
                    return
                part.drop(received)
                raise Trouble("the server has no more of this file") from error
            _refuse(remote, error)
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            said = error.reason.verify_message
            raise BitMarError(f"{shown_url(remote.url)}: the server's certificate is not trusted ({said}); check the address and the clock") from error
        raise Trouble(reason_of(error)) from error
    except (http.client.HTTPException, OSError) as error:
        raise Trouble(reason_of(error)) from error


def _refuse(remote: Remote, error: urllib.error.HTTPError) -> None:
    """Turn an HTTP error into ours."""
    if error.code in PASSING:
        raise Trouble(f"the server answers {error.code} {error.reason}", retry_after(error.headers.get("Retry-After"))) from error
    if error.code in (401, 403, 404, 410):
        raise MissingError(f"{shown_url(remote.url)}: the server answers {error.code} {error.reason}; check the address or use another mirror") from error
    raise BitMarError(f"{shown_url(remote.url)}: the server answers {error.code} {error.reason}; use another mirror") from error


def _begin(remote: Remote, part: Part, response: Any, received: Callable[[int], None]) -> int | None:
    """Make the part fit to the answer; gives the size of the whole file, None where the server does not say it."""
    length = response.headers.get("Content-Length", "")
    rest = int(length) if re.fullmatch(r"\d{1,15}", length) else None
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)", response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != part.count:
            part.drop(received)
            raise Trouble("the server sent another part than the one that was asked for")
        total = int(found[3]) if found[3] != "*" else None if rest is None else part.count + rest
    else:  # the whole file: the server ignores ranges, or the file is not the one that the part is of
        part.drop(received)
        total = rest
    if total is not None and remote.size is not None and total != remote.size:
        raise BitMarError(f"{shown_url(remote.url)} has {total} bytes where {remote.size} are expected; use another mirror")
    part.remember(response.headers)
    return remote.size if total is None else total


class Part:
    """`NAME.part`: the bytes so far. `count` is how many."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self.path = remote.path.with_name(remote.path.name + ".part")
        self.notes = remote.path.with_name(remote.path.name + ".part.json")
        self._handle: Any = None
        self.validator: str | None = None
        self.count = 0
        try:
            remote.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_file():
                self.count = self.path.stat().st_size
                self._read_notes()
        except OSError as error:
            raise disk_error(self.path, error) from error
        if remote.size is not None and self.count > remote.size:
            self.drop()

    def _read_notes(self) -> None:
        try:
            notes = json.loads(self.notes.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # no notes: the part is of use only where a digest can check the whole
            return
        if isinstance(notes, dict) and notes.get("url") == self.remote.url and isinstance(notes.get("validator"), str):
            self.validator = notes["validator"]

    def range_headers(self) -> dict[str, str]:
        """Headers that ask for the rest; empty where there is no part, or nothing to prove that the rest belongs to it."""
        if not self.count or (self.validator is None and self.remote.sha256 is None):
            return {}
        wanted = {"Range": f"bytes={self.count}-"}
        return wanted if self.validator is None else {**wanted, "If-Range": self.validator}

    def remember(self, headers: Any) -> None:
        """Note what identifies the server's file: its strong ETag, else its date."""
        etag = headers.get("ETag", "")
        validator = etag if etag.startswith('"') else headers.get("Last-Modified")  # If-Range takes no weak ETag (RFC 9110, 13.1.5)
        if validator != self.validator or not self.notes.exists():
            self.validator = validator
            text = json.dumps({"url": self.remote.url, "validator": validator})
            try:
                self.notes.write_text(text, encoding="utf-8")
            except OSError as error:
                raise disk_error(self.notes, error) from error

    def write(self, data: bytes) -> None:
        """Append."""
        try:
            if self._handle is None:
                self._handle = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed by `close`; unbuffered, so a killed run loses nothing
            rest = memoryview(data)
            while rest:
                written = self._handle.write(rest)
                self.count += written
                rest = rest[written:]
        except OSError as error:
            self.close()
            raise disk_error(self.path, error) from error

    def close(self) -> None:
        """Let go of the file."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def drop(self, received: Callable[[int], None] = lambda count: None) -> None:
        """Begin anew, and take back what was told of the bytes."""
        self.close()
        if self.count:
            received(-self.count)
            self.path.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)
        self.count, self.validator = 0, None

    def problem(self) -> str | None:
        """Why this is not the expected file; None where nothing speaks against it."""
        self.close()
        if self.remote.size is not None and self.count != self.remote.size:
            return f"{self.count} bytes, not {self.remote.size}"
        if self.remote.sha256 is not None and (self.count == 0 or sha256_of(self.path) != self.remote.sha256):
            return "another sha256"
        return None if self.remote.check is None else self.remote.check(self.path)

    def finish(self, *, sync: bool) -> None:
        """Give the file its real name."""
        self.close()
        try:
            with open(self.path, "ab") as file:  # creates it where the file is empty
                if sync:
                    os.fsync(file.fileno())
            os.replace(self.path, self.remote.path)
        except OSError as error:
            raise disk_error(self.remote.path, error) from error
        self.notes.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """sha256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def disk_error(path: Path, error: OSError) -> DiskError:
    """The one line for a disk that does not take a file."""
    return DiskError(f"cannot write {path}: {error.strerror or error}; free space or choose another folder, then run the same command again")
