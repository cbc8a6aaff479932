#!/usr/bin/env python3
"""Restores one volume at a time, from a Pacsimile repository and its key file alone: restore.py KEY-FILE REPOSITORY AGENT VOLUME MS DIRECTORY

Written from docs/format.md, as short as it can be: proof that an archive outlives the program that made it. MS is milliseconds since
1970 UTC, or "now". It needs Debian's python3-cryptography and libzstd. A frame's seal stands for its digest, whose key it is: what was
tampered with ends the program. decode.py beside the golden files is its strict sibling, which checks every rule of the document.
"""
import base64, ctypes, hashlib, hmac, json, os, struct, sys, zlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ZSTD = ctypes.CDLL("libzstd.so.1")
ZSTD.ZSTD_decompress.restype = ctypes.c_size_t
KINDS = ["", "file", "directory", "symlink", "fifo", "socket", "character-device", "block-device"]


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def raw(self, count):
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, layout):
        return struct.unpack("<" + layout, self.raw(struct.calcsize(layout)))[0]

    def varint(self):
        byte = self.number("B")
        return byte if byte < 0x80 else byte - 0x80 + (self.varint() << 7)

    def string(self):
        return self.raw(self.varint())


def data_key(key_file, repository):
    secret = bytes.fromhex(open(key_file).read().strip().split(":")[1])
    identity = json.load(open(os.path.join(repository, "repository.json")))["id"]
    slots = [json.load(open(os.path.join(repository, "keys", name))) for name in os.listdir(os.path.join(repository, "keys"))]
    for slot in [slot for slot in slots if slot["kind"] == "key-file"]:
        key = HKDF(SHA256(), 32, base64.b64decode(slot["kdf"]["salt"]), b"pacsimile key slot v1").derive(secret)
        aad = "\0".join(["pacsimile key slot v1", identity, slot["id"], "key-file"]).encode()
        try:
            return AESGCM(key).decrypt(base64.b64decode(slot["nonce"]), base64.b64decode(slot["wrapped"]), aad)
        except InvalidTag:
            continue
    sys.exit("no slot opens with this key file")


def derive(key, purpose, context):
    return hmac.new(key, purpose + context + b"\x01", hashlib.sha256).digest()


def frames(path, key):
    """(type, offset, digest) of every whole frame of a file."""
    data = open(path, "rb").read()
    label_key, at = AESGCM(derive(key, b"pacsimile label v1", data[48:80])), data.find(b"PcF1", 96)
    while 0 <= at <= len(data) - 80:
        head = data[at : at + 80]
        stored = struct.unpack("<I", head[12:16])[0]
        body, ends = data[at + 80 : at + 96 + stored], data[at + 96 + stored : at + 100 + stored]
        whole = zlib.crc32(head[:76]) == struct.unpack("<I", head[76:])[0] and len(ends) == 4 and zlib.crc32(body) == struct.unpack("<I", ends)[0]
        if whole and head[4] < 128:
            yield head[4], at, label_key.decrypt(head[16:28], head[28:76], head[:28])
        at = data.find(b"PcF1", at + (100 + stored if whole else 1))


def payload(path, at, digest, key):
    with open(path, "rb") as file:
        file.seek(at)
        head = file.read(80)
        plain, stored = struct.unpack("<II", head[8:16])
        content = AESGCM(derive(key, b"pacsimile frame v1", digest)).decrypt(head[16:28], file.read(stored + 16), head[:28])
    if head[5] & 1:
        room = ctypes.create_string_buffer(plain + head[6])
        if ZSTD.ZSTD_decompress(room, ctypes.c_size_t(len(room)), content, ctypes.c_size_t(len(content))) != len(room):
            raise ValueError(f"{path}: a frame at byte {at} does not decompress")
        content = room.raw
    return unfilter(content) if head[6] == 1 else content


def unfilter(data):
    width, big, step, lead = 1 << (data[0] & 3), data[0] & 4, (data[0] >> 3 & 3) + 1, data[0] >> 5
    count = (len(data) - 1 - lead) // width
    planes = [data[1 + lead + i * count :][:count] for i in range(width)]
    values, most = [0] * step, (1 << 8 * width) - 1
    for weights in zip(*planes):
        coded = int.from_bytes(bytes(weights), "big")
        values.append(((coded >> 1) ^ -(coded & 1)) + values[-step] & most)
    order = "big" if big else "little"
    return data[1 : 1 + lead] + b"".join(value.to_bytes(width, order) for value in values[step:]) + data[1 + lead + count * width :]


def version(r):
    v = dict(kind=KINDS[r.number("B")], mode=r.varint(), uid=r.varint(), gid=r.varint(), mtime=r.number("q"))
    r.number("q")
    v.update(inode=r.number("Q"), links=r.varint(), xattrs=[(r.string(), r.string()) for _ in range(r.varint())])
    if v["kind"] == "file":
        v.update(torn=r.number("B") == 4, size=r.varint(), digest=r.raw(32), chunks=[(r.raw(32), r.varint()) for _ in range(r.varint())])
    elif v["kind"] == "symlink":
        v["target"] = r.string()
    return v


def records(repository, key, agent):
    """(epoch, seq, time, kind, reader behind the header) in order, each once."""
    last = (0, 0)
    for path in objects(repository, "segments"):
        for kind, at, digest in frames(path, key):
            group = Reader(payload(path, at, digest, key)) if kind == 2 else None
            if group is None or group.string().decode() != agent:
                continue
            for _ in range(group.varint()):
                r = Reader(group.string())
                r.at = 32
                epoch, seq, time, kind = r.number("Q"), r.number("Q"), r.number("Q"), r.number("B")
                if (epoch, seq) > last:
                    last = (epoch, seq)
                    yield epoch, seq, time, kind, r


def objects(repository, shelf):
    found = [os.path.join(top, name) for top, _, names in os.walk(os.path.join(repository, shelf)) for name in names]
    return sorted((path for path in found if path.endswith((".pack", ".seg"))), key=os.path.basename)


def within(path, above):
    return path == above or above == b"" or path.startswith(above + b"/")


def tree_at(repository, key, agent, volume, ms):
    everything, tree = list(records(repository, key, agent)), {}
    until = everything[-1][2] if ms is None else ms * 65536 + 65535
    epochs = [epoch for epoch, seq, time, _, _ in everything if seq == 1 and time <= until]
    if not epochs:
        sys.exit("nothing was recorded by then")
    for epoch, seq, time, kind, r in everything:
        if epoch > max(epochs) or (epoch == max(epochs) and time > until) or kind not in (3, 4, 5, 6) or r.string().decode() != volume:
            continue
        if kind == 3:
            path, v = r.string(), version(r)
            if v["kind"] != "directory" and path in tree and tree[path][1]["kind"] == "directory":
                tree = {p: e for p, e in tree.items() if not within(p, path)}
            tree[path] = ((epoch, seq), v)
        elif kind == 4:
            path = r.string()
            tree = {p: e for p, e in tree.items() if not within(p, path)}
        elif kind == 5:
            path, to = r.string(), r.string()
            moved = {to + p[len(path) :]: ((epoch, seq), e[1]) for p, e in tree.items() if within(p, path)}
            if moved and not within(path, to) and not within(to, path):
                tree = {**{p: e for p, e in tree.items() if not within(p, path) and not within(p, to)}, **moved}
        else:
            since = (epoch, r.number("Q"))
            stays = [p for p, e in tree.items() if e[0] >= since]
            above = {p[:i] for p in stays for i in range(len(p)) if p[i : i + 1] == b"/"} | ({b""} if stays else set())
            tree = {p: e for p, e in tree.items() if e[0] >= since or (e[1]["kind"] == "directory" and p in above)}
    return {path: v for path, (_, v) in sorted(tree.items(), key=lambda item: item[0].replace(b"/", b"\0"))}


def main(key_file, repository, agent, volume, ms, directory):
    key = data_key(key_file, repository)
    chunks = {digest: (path, at) for path in objects(repository, "packs") for kind, at, digest in frames(path, key) if kind == 1}
    tree, linked, top = tree_at(repository, key, agent, volume, None if ms == "now" else int(ms)), {}, os.fsencode(directory)
    os.makedirs(top, exist_ok=True)
    for path, v in tree.items():
        place, kind = os.path.join(top, path), v["kind"]
        identity = (kind, v["inode"], v["mtime"], v["mode"], v["uid"], v["gid"], v.get("digest"))
        if kind == "directory":
            os.makedirs(place, exist_ok=True)
        elif v["links"] > 1 and identity in linked:
            os.link(linked[identity], place, follow_symlinks=False)
        elif kind == "symlink":
            os.symlink(v["target"], place)
        elif kind == "file" and not v["torn"] and all(digest in chunks for digest, _ in v["chunks"]):
            with open(place, "xb") as file:
                for digest, _ in v["chunks"]:
                    file.write(payload(*chunks[digest], digest, key))
        else:
            print(f"left out: {path!r}", file=sys.stderr)
            continue
        linked[identity] = place
    for path, v in reversed(tree.items()):
        place = os.path.join(top, path)
        if os.path.lexists(place):
            os.chown(place, v["uid"], v["gid"], follow_symlinks=False)
            if v["kind"] != "symlink":
                os.chmod(place, v["mode"] if v["kind"] == "directory" else v["mode"] & 0o1777)
            for name, value in v["xattrs"]:
                if not name.startswith(b"security."):
                    os.setxattr(place, name, value, follow_symlinks=False)
            os.utime(place, ns=(v["mtime"], v["mtime"]), follow_symlinks=False)


main(*sys.argv[1:])
