"""Turns root filesystem tars into OCI layers and layouts; no tool but Python is needed.

Nouns: a *step* is a complete root as a tar (what mmdebstrap writes); a *layer* holds what one step changed over the
step before it, with whiteouts for what it removed; a *layout* is an OCI image layout folder.
"""

import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib

BLOCK = 512


def _clean(name):
    """One spelling for a path, without "./" in front and "/" behind."""
    return name.removeprefix("./").strip("/")


def _index(path):
    """Path -> (identity, offset, end, member) of every entry; identity covers metadata and content."""
    entries = {}
    with tarfile.open(path) as archive, open(path, "rb") as raw:
        for member in archive:
            size = member.size if member.isreg() else 0
            end = member.offset_data + -(-size // BLOCK) * BLOCK
            content = hashlib.sha256()
            raw.seek(member.offset_data)
            left = size
            while left:
                piece = raw.read(min(left, 1 << 20))
                content.update(piece)
                left -= len(piece)
            identity = (
                member.type, member.mode, member.uid, member.gid, member.mtime, member.linkname,
                member.devmajor, member.devminor, tuple(sorted(member.pax_headers.items())), content.digest(),
            )
            entries[_clean(member.name)] = (identity, member.offset, end, member)
    return entries


def diff(lower, upper, out):
    """Writes to `out` the layer that turns the root in tar `lower` into the one in tar `upper`."""
    before, after = _index(lower), _index(upper)
    changed = {path for path, entry in after.items() if before.get(path, (None,))[0] != entry[0]}
    # A hard link travels with its whole group, so that no link points into a lower layer.
    group = {path: _clean(e[3].linkname) if e[3].islnk() else path for path, e in after.items()}
    touched = {group[path] for path in changed}
    changed |= {path for path, first in group.items() if first in touched and after[first][3].isreg()}
    with open(out, "wb") as target:
        for path in sorted(set(before) - set(after)):
            parent, _, name = path.rpartition("/")
            if parent and parent not in after:
                continue  # the folder's own whiteout covers it
            info = tarfile.TarInfo(f"{parent}/.wh.{name}" if parent else f".wh.{name}")
            info.mtime = int(os.environ["SOURCE_DATE_EPOCH"])
            target.write(info.tobuf(tarfile.PAX_FORMAT))
        with open(upper, "rb") as raw:
            for path, (_, offset, end, _) in after.items():  # in tar order
                if path in changed:
                    raw.seek(offset)
                    _copy(raw, target, end - offset)
        target.write(bytes(2 * BLOCK))
    return len(changed)


def flatten(source, out, folder, count):
    """Copies tar `source` to `out` and puts `count` of its regular files once more into one `folder`."""
    with tarfile.open(source) as archive, open(source, "rb") as raw, open(out, "wb") as target:
        done = 0
        made = tarfile.TarInfo(f"./{folder}")
        made.type, made.mode, made.mtime = tarfile.DIRTYPE, 0o755, int(os.environ["SOURCE_DATE_EPOCH"])
        header = made.tobuf(tarfile.PAX_FORMAT)
        for member in archive:
            end = member.offset_data + -(-(member.size if member.isreg() else 0) // BLOCK) * BLOCK
            raw.seek(member.offset)
            _copy(raw, target, end - member.offset)
            if member.isreg() and done < count:
                target.write(header)
                header = b""
                info = tarfile.TarInfo(f"./{folder}/{done:06}-{os.path.basename(member.name)[-80:]}")
                info.size, info.mode, info.mtime = member.size, member.mode, member.mtime
                target.write(info.tobuf(tarfile.PAX_FORMAT))
                raw.seek(member.offset_data)
                _copy(raw, target, end - member.offset_data)
                done += 1
        target.write(bytes(2 * BLOCK))
    if done < count:
        raise SystemExit(f"{source} has only {done} regular files, {count} are wanted")


def _copy(source, target, count):
    while count:
        piece = source.read(min(count, 1 << 20))
        if not piece:
            raise SystemExit("a tar ends before its last entry does")
        target.write(piece)
        count -= len(piece)


def layout(folder, tars, compress=True):
    """Makes an OCI layout with one gzip layer for each tar, tagged `latest`; every byte follows from the tars."""
    blobs = os.path.join(folder, "blobs", "sha256")
    os.makedirs(blobs, exist_ok=True)

    def put(data, media_type):
        digest = hashlib.sha256(data).hexdigest()
        with open(os.path.join(blobs, digest), "wb") as blob:
            blob.write(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    layers, diff_ids = [], []
    for path in tars:
        descriptor, diff_id = _layer(blobs, path, compress)
        layers.append(descriptor)
        diff_ids.append(diff_id)
    config = {
        "created": "2025-01-01T00:00:00Z",
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": layers,
    }
    entry = put(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    with open(os.path.join(folder, "index.json"), "w") as index:
        json.dump({"schemaVersion": 2, "manifests": [entry]}, index)
    with open(os.path.join(folder, "oci-layout"), "w") as version:
        json.dump({"imageLayoutVersion": "1.0.0"}, version)


def _layer(blobs, path, compress):
    """Stores one tar as a blob; level 6 is what Docker, BuildKit and umoci use."""
    diff_id, digest, size = hashlib.sha256(), hashlib.sha256(), 0
    packer = zlib.compressobj(6, zlib.DEFLATED, 31) if compress else None
    partial = os.path.join(blobs, f".{os.path.basename(path)}.part")
    with open(path, "rb") as raw, open(partial, "wb") as blob:
        while True:
            piece = raw.read(1 << 20)
            diff_id.update(piece)
            packed = piece if packer is None else packer.compress(piece) if piece else packer.flush()
            digest.update(packed)
            size += blob.write(packed)
            if not piece:
                break
    os.rename(partial, os.path.join(blobs, digest.hexdigest()))
    kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if compress else "")
    return {"mediaType": kind, "digest": f"sha256:{digest.hexdigest()}", "size": size}, f"sha256:{diff_id.hexdigest()}"


def count(path):
    """Entries and bytes of a tar, plain or gzip, with its largest folder."""
    entries, folders = 0, {}
    with tarfile.open(path) as archive:
        for member in archive:
            entries += 1
            folder = os.path.dirname(_clean(member.name))
            folders[folder] = folders.get(folder, 0) + 1
    largest = max(folders, key=folders.get)
    return {"entries": entries, "bytes": os.path.getsize(path), "largest_folder": f"/{largest}",
            "largest_folder_entries": folders[largest]}


def read_blob(path):
    """The bytes of a small blob, decompressed when it is gzip."""
    with open(path, "rb") as blob:
        data = blob.read()
    return gzip.GzipFile(fileobj=io.BytesIO(data)).read() if data[:2] == b"\x1f\x8b" else data
