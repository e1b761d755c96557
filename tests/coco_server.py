"""A small COCO and a server for it that misbehaves as it is told."""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image

from bitmar_core.data.coco_plan import Archive, Release
from bitmar_core.data.fetch import Retries

QUICK = Retries(attempts=4, first_wait=0.001, longest_wait=0.01, timeout=5.0)


def picture(number: int, kind: str = "JPEG") -> bytes:
    """A small picture of its own, always the same."""
    width, height = 24 + number, 18
    image = Image.frombytes("RGB", (width, height), random.Random(number).randbytes(width * height * 3))
    data = io.BytesIO()
    image.save(data, kind)
    return data.getvalue()


def captions_json(pictures: dict[str, bytes]) -> bytes:
    """COCO's captions file for these pictures, two captions each."""
    images = [{"id": i, "file_name": name, "width": 24, "height": 18} for i, name in enumerate(pictures)]
    notes = [{"id": 10 * i + j, "image_id": i, "caption": f"Picture {i}, said in way {j}.\n"} for i in range(len(pictures)) for j in range(2)]
    return json.dumps({"info": {}, "images": images, "annotations": notes}).encode()


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip archive, pictures stored as COCO's are."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content, zipfile.ZIP_DEFLATED if name.endswith(".json") else zipfile.ZIP_STORED)
    return data.getvalue()


def tiny_coco(train: int = 6, val: int = 4) -> dict[str, bytes]:
    """What COCO's server has, by path: three archives, and each picture by itself."""
    served: dict[str, bytes] = {}
    captions = {}
    for split, count, first in (("train", train, 100), ("val", val, 200)):
        pictures = {f"{first + i:012d}.jpg": picture(first + i) for i in range(count)}
        served |= {f"/{split}2017/{name}": data for name, data in pictures.items()}
        served[f"/zips/{split}2017.zip"] = zipped({f"{split}2017/": b""} | {f"{split}2017/{name}": data for name, data in pictures.items()})
        captions[f"annotations/captions_{split}2017.json"] = captions_json(pictures)
    served["/annotations/annotations_trainval2017.zip"] = zipped({**captions, "annotations/instances_val2017.json": b"{}"})
    return served


def release_of(base: str, served: dict[str, bytes]) -> Release:
    """The release that `served` is, with its true sizes and digests."""

    def archive(path: str) -> Archive:
        data = served[path]
        return Archive(url=path[1:], size=len(data), sha256=hashlib.sha256(data).hexdigest(), unpacked=len(data))

    return Release(
        base=base,
        captions=archive("/annotations/annotations_trainval2017.zip"),
        pictures={split: archive(f"/zips/{split}2017.zip") for split in ("train", "val")},
        count={split: sum(path.startswith(f"/{split}2017/") for path in served) for split in ("train", "val")},
    )


@dataclass
class Server:
    """What is served, how it misbehaves, and what it was asked for."""

    base: str
    served: dict[str, bytes]
    faults: dict[str, list[Callable[[BaseHTTPRequestHandler, bytes], bool]]] = field(default_factory=dict)
    """By path: faults for the next requests, first come first. One that gives False lets the request go on as usual."""
    ranges: bool = True
    validators: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """(path, Range header) of each request"""

    def asked_for(self, path: str) -> list[str | None]:
        """Range headers of the requests for `path`."""
        return [wanted for what, wanted in self.asked if what == path]


@contextmanager
def serving(served: dict[str, bytes]) -> Iterator[Server]:
    """A server on this machine for the time of the block."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            server.asked.append((self.path, self.headers.get("Range")))
            data = served.get(self.path)
            waiting = server.faults.get(self.path) or server.faults.get("*")
            if waiting and waiting.pop(0)(self, data or b""):
                self.close_connection = True
                return
            if data is None:
                self.send_error(404)
                return
            etag = f'"{hashlib.md5(data).hexdigest()}"'
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            fits = not self.headers.get("If-Range") or (server.validators and self.headers.get("If-Range") == etag)
            start = int(wanted[1]) if wanted and server.ranges and fits else 0
            if start and start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            if server.validators:
                self.send_header("ETag", etag)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start:])

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = Server(base=f"http://127.0.0.1:{http.server_port}", served=served)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


# --- faults ---


def cut_after(count: int) -> Callable[[BaseHTTPRequestHandler, bytes], bool]:
    """Promise the whole file, send `count` bytes of what was asked for, and hang up."""

    def fault(handler: BaseHTTPRequestHandler, data: bytes) -> bool:
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("ETag", f'"{hashlib.md5(data).hexdigest()}"')
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        handler.wfile.write(data[start : start + count])
        return True

    return fault


def lying_length(more: int) -> Callable[[BaseHTTPRequestHandler, bytes], bool]:
    """Say a Content-Length that is `more` bytes off; then send everything and hang up."""

    def fault(handler: BaseHTTPRequestHandler, data: bytes) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data) + more))
        handler.end_headers()
        handler.wfile.write(data)
        return True

    return fault


def answer(code: int, *, retry_after: str | None = None, body: bytes = b"") -> Callable[[BaseHTTPRequestHandler, bytes], bool]:
    """Answer with a status and nothing of the file."""

    def fault(handler: BaseHTTPRequestHandler, data: bytes) -> bool:
        handler.send_response(code)
        if retry_after is not None:
            handler.send_header("Retry-After", retry_after)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        return True

    return fault


def redirect(url: str) -> Callable[[BaseHTTPRequestHandler, bytes], bool]:
    """Send the client elsewhere."""

    def fault(handler: BaseHTTPRequestHandler, data: bytes) -> bool:
        handler.send_response(302)
        handler.send_header("Location", url)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return fault


def damaged(archive: bytes, content: bytes) -> bytes:
    """The archive with one byte of a stored member changed: the CRC does not fit any more."""
    at = archive.index(content) + len(content) // 2
    return archive[:at] + bytes([archive[at] ^ 0xFF]) + archive[at + 1 :]


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".bitmar-download.lock"}
