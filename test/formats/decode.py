#!/usr/bin/env python3
"""Reads a Pacsimile repository with a key and nothing else.

Written from docs/format.md alone, as a second opinion on it: where this program and Pacsimile differ, one of the two or
the document is wrong. It needs Debian's python3-cryptography and zstd, and python3-argon2 for passphrases only.

    decode.py KEY REPOSITORY records                      every record of every agent, as JSON
    decode.py KEY REPOSITORY tree AGENT VOLUME [AT]       the tree at a point, as JSON
    decode.py KEY REPOSITORY extract AGENT VOLUME DIR [AT]

KEY is --key-file=FILE, --recovery-key=TEXT or --passphrase=TEXT. AT is EPOCH:SEQ or milliseconds since 1970 UTC.
Damage is listed on standard error, and then the exit status is 3; what is of another version is refused with status 11.
"""

import base64
import hashlib
import hmac
import json
import os
import re
import struct
import subprocess
import sys
import unicodedata
import zlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Refused(Exception):
    """Of a version that this program does not know, or not of this format at all."""


class Damage(Exception):
    """Not what was written."""


# ---- BLAKE3 (https://github.com/BLAKE3-team/BLAKE3-specs) --------------------------------------------------------------

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
MIXES = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def compress(chaining, block, counter, length, flags):
    m = list(struct.unpack("<16I", block.ljust(64, b"\0")))
    v = list(chaining) + list(IV[:4]) + [counter & 0xFFFFFFFF, counter >> 32, length, flags]
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(MIXES):
            for word, (left, right) in ((m[2 * i], (16, 12)), (m[2 * i + 1], (8, 7))):
                v[a] = (v[a] + v[b] + word) & 0xFFFFFFFF
                v[d] ^= v[a]
                v[d] = ((v[d] >> left) | (v[d] << (32 - left))) & 0xFFFFFFFF
                v[c] = (v[c] + v[d]) & 0xFFFFFFFF
                v[b] ^= v[c]
                v[b] = ((v[b] >> right) | (v[b] << (32 - right))) & 0xFFFFFFFF
        m = [m[i] for i in PERMUTATION]
    return [v[i] ^ v[i + 8] for i in range(8)]


def blake3(data):
    def node(start, end, root):
        """Chaining value of a subtree; the last compression of the whole carries ROOT."""
        if end - start <= 1024:
            value, counter = IV, start // 1024
            blocks = max(1, -(-(end - start) // 64))
            for i in range(blocks):
                block = data[start + 64 * i : min(end, start + 64 * i + 64)]
                flags = (CHUNK_START if i == 0 else 0) | ((CHUNK_END | root) if i == blocks - 1 else 0)
                value = compress(value, block, counter, len(block), flags)
            return value
        chunks = -(-(end - start) // 1024)
        middle = start + 1024 * (1 << ((chunks - 1).bit_length() - 1))
        both = node(start, middle, 0) + node(middle, end, 0)
        return compress(IV, struct.pack("<16I", *both), 0, 64, PARENT | root)

    return struct.pack("<8I", *node(0, len(data), ROOT))


# ---- notation ----------------------------------------------------------------------------------------------------------


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def raw(self, count):
        if count > len(self.data) - self.at:
            raise Damage("shorter than it says")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, layout):
        return struct.unpack("<" + layout, self.raw(struct.calcsize("<" + layout)))[0]

    def u8(self):
        return self.number("B")

    def u64(self):
        value = self.number("Q")
        if value >= 1 << 53:
            raise Damage("number too large")
        return value

    def varint(self, most=(1 << 53) - 1):
        value = 0
        for i in range(8):
            byte = self.u8()
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                if (i > 0 and byte == 0) or value > most:
                    raise Damage("bad varint")
                return value
        raise Damage("varint too long")

    def string(self, most):
        return self.raw(self.varint(most))

    def text(self):
        try:
            return self.string(1024).decode("utf-8")
        except UnicodeDecodeError:
            raise Damage("text that is not UTF-8") from None

    def end(self):
        if self.at != len(self.data):
            raise Damage("longer than it says")


def label(data):
    if not re.fullmatch(rb"[a-z0-9][a-z0-9._-]{0,63}", data):
        raise Damage("bad label")
    return data.decode("ascii")


def checked_path(data):
    if data != b"":
        for name in data.split(b"/"):
            if name in (b"", b".", b"..") or len(name) > 255 or b"\0" in name:
                raise Damage("bad path")
    return data


# ---- keys --------------------------------------------------------------------------------------------------------------

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def parse_recovery_key(text):
    typed = re.sub(r"[\s-]", "", text.upper()).replace("O", "0").replace("I", "1").replace("L", "1")
    if len(typed) != 60 or any(character not in ALPHABET for character in typed):
        raise Refused("a mistyped recovery key")

    def decode(part, length):
        value = 0
        for character in part:
            value = value << 5 | ALPHABET.index(character)
        spare = len(part) * 5 - length * 8
        if value & ((1 << spare) - 1):
            raise Refused("a mistyped recovery key")
        return (value >> spare).to_bytes(length, "big")

    key = decode(typed[:52], 32)
    if decode(typed[52:], 5) != hashlib.sha256(key).digest()[:5]:
        raise Refused("a mistyped recovery key")
    return key


def parse_secret(option):
    name, _, value = option.partition("=")
    if name == "--key-file":
        with open(value, "rb") as file:
            match = re.fullmatch(rb"pacsimile-key-1:([0-9a-f]{64})\s*", file.read())
        if not match:
            raise Refused("not a key file")
        return "key-file", bytes.fromhex(match[1].decode())
    if name == "--recovery-key":
        return "recovery", parse_recovery_key(value)
    if name == "--passphrase":
        return "passphrase", unicodedata.normalize("NFC", value).encode("utf-8")
    raise SystemExit(__doc__)


MEMBERS = {"version", "id", "kind", "created", "kdf", "nonce", "wrapped", "checksum"}


def open_slot(slot, name, repository, kind, secret):
    """The data key; None where the slot is of another secret."""
    if set(slot) != MEMBERS or slot["version"] != 1 or slot["id"] + ".json" != name:
        raise Damage(f"slot {name}: not a slot of version 1")
    kdf = slot["kdf"]
    costs = [kdf["memoryKiB"], kdf["passes"], kdf["parallelism"]] if kdf["name"] == "argon2id" else []
    fields = ["pacsimile key slot v1", repository, slot["id"], slot["kind"], slot["created"], kdf["name"], kdf["salt"]]
    fields += [str(cost) for cost in costs] + [slot["nonce"], slot["wrapped"]]
    if hashlib.sha256("\0".join(fields).encode()).digest()[:8].hex() != slot["checksum"]:
        raise Damage(f"slot {name}: checksum")
    if slot["kind"] != kind:
        return None
    salt = base64.b64decode(kdf["salt"], validate=True)
    if kdf["name"] == "hkdf-sha256":
        wrapping = HKDF(SHA256(), 32, salt, b"pacsimile key slot v1").derive(secret)
    else:
        if not (8 <= costs[0] <= 1048576 and 1 <= costs[1] <= 64 and 1 <= costs[2] <= 64):
            raise Damage(f"slot {name}: parameters")
        from argon2.low_level import Type, hash_secret_raw

        wrapping = hash_secret_raw(secret, salt, costs[1], costs[0], costs[2], 32, Type.ID, 0x13)
    aad = "\0".join(["pacsimile key slot v1", repository, slot["id"], kind]).encode()
    try:
        return AESGCM(wrapping).decrypt(base64.b64decode(slot["nonce"]), base64.b64decode(slot["wrapped"]), aad)
    except InvalidTag:
        return None


def open_keys(directory, repository, kind, secret):
    keys = os.path.join(directory, "keys")
    for name in sorted(os.listdir(keys)):
        if not re.fullmatch(r"[0-9a-f]{8}\.json", name):
            continue
        try:
            with open(os.path.join(keys, name), encoding="utf-8") as file:
                data_key = open_slot(json.load(file), name, repository, kind, secret)
        except (Damage, KeyError, TypeError, ValueError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        if data_key is not None:
            return data_key
    raise Refused("no slot opens with this key")


# ---- files of frames ---------------------------------------------------------------------------------------------------

FRAME_MAX = 256 << 20


def derive(data_key, purpose, context):
    return hmac.new(data_key, purpose + context + b"\x01", hashlib.sha256).digest()


def unseal(key, nonce, aad, sealed, what):
    try:
        return AESGCM(key).decrypt(nonce, sealed, aad)
    except InvalidTag:
        raise Damage(f"{what} does not open") from None


def decompress(data, length):
    """zstd, and not a byte more than there ought to be."""
    with subprocess.Popen(["zstd", "-dcq"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        plain, _ = process.communicate(data)
    if process.returncode != 0 or len(plain) != length:
        raise Damage("compressed content does not open")
    return plain


def unfilter(data):
    """Filter 1: samples as differences, their bytes in planes."""
    if not data or data[0] & 0x83 in (3, 0x80, 0x81, 0x82, 0x83):
        raise Damage("filtered content does not begin as such")
    width, big, step, lead = 1 << (data[0] & 3), data[0] & 4, (data[0] >> 3 & 3) + 1, data[0] >> 5
    if lead >= width or lead >= len(data):
        raise Damage("filtered content is too short")
    count = (len(data) - 1 - lead) // width
    planes = [data[1 + lead + i * count : 1 + lead + (i + 1) * count] for i in range(width)]
    values = []
    for i in range(count):
        coded = int.from_bytes(bytes(plane[i] for plane in planes), "big")
        difference = coded >> 1 if coded & 1 == 0 else -(coded >> 1) - 1
        values.append((difference + (values[i - step] if i >= step else 0)) % (1 << 8 * width))
    samples = b"".join(value.to_bytes(width, "big" if big else "little") for value in values)
    return data[1 : 1 + lead] + samples + data[1 + lead + count * width :]


class FrameFile:
    def __init__(self, repository, kind, number, path):
        with open(path, "rb") as file:
            self.data = file.read()
        self.path, self.data_key = path, repository.data_key
        head = self.data[:96]
        if len(head) < 96 or head[:8] != b"PACSIMIL" or zlib.crc32(head[:92]) != struct.unpack("<I", head[92:])[0]:
            raise Damage(f"{path}: header")
        if head[9] != 1:
            raise Refused(f"{path}: major version {head[9]}")
        if head[8:9] != kind or head[16:32].hex() != repository.id or struct.unpack("<Q", head[32:40])[0] != number:
            raise Damage(f"{path}: not the file that belongs here")
        self.label_key = derive(self.data_key, b"pacsimile label v1", head[48:80])

    def frame(self, at):
        """(type, bytes, digest) of the whole frame that begins there; None where there is none."""
        head = self.data[at : at + 80]
        if len(head) < 80 or head[:4] != b"PcF1" or zlib.crc32(head[:76]) != struct.unpack("<I", head[76:])[0]:
            return None
        kind, flags, content_filter = head[4], head[5], head[6]
        plain, stored = struct.unpack("<II", head[8:16])
        if kind not in (1, 2, 3) and kind < 128:
            raise Refused(f"{self.path}: a frame of type {kind} at byte {at}")
        if kind < 128 and (flags & ~1 or content_filter > 1):
            raise Refused(f"{self.path}: a frame with flags {flags}, filter {content_filter} at byte {at}")
        if max(plain, stored) > FRAME_MAX or at + 100 + stored > len(self.data):
            return None
        if zlib.crc32(self.data[at + 80 : at + 96 + stored]) != struct.unpack("<I", self.data[at + 96 + stored : at + 100 + stored])[0]:
            return None
        if kind >= 128:
            return kind, 100 + stored, None
        try:
            return kind, 100 + stored, unseal(self.label_key, head[16:28], head[:28], head[28:76], "a label")
        except Damage:
            return None

    def frames(self, damaged):
        """(type, offset, digest) of all that is whole, front to back."""
        at, indexed = 96, False
        while at < len(self.data):
            found = self.frame(at)
            if found:
                if found[0] < 3:
                    yield found[0], at, found[2]
                indexed = indexed or found[0] == 3
                at += found[1]
                if found[0] == 3 and self.is_footer(at):
                    return
                continue
            after = self.data.find(b"PcF1", at + 1)
            while after >= 0 and not self.frame(after):
                after = self.data.find(b"PcF1", after + 1)
            if after >= 0 or indexed or self.is_footer(len(self.data) - 16):
                damaged(f"{self.path}: damage at byte {at}")
            if after < 0:
                return
            at = after

    def is_footer(self, at):
        footer = self.data[at:]
        return len(footer) == 16 and footer[:4] == b"PcE1" and zlib.crc32(footer[:12]) == struct.unpack("<I", footer[12:])[0]

    def index(self):
        """What the index of a sealed file lists: (type, offset, digest); None where there is none."""
        if len(self.data) < 112 or not self.is_footer(len(self.data) - 16):
            return None
        offset = struct.unpack("<Q", self.data[-12:-4])[0]
        found = self.frame(offset)
        if not found or found[0] != 3:
            return None
        try:
            reader = Reader(self.payload(offset, found[2]))
            listed = []
            for _ in range(reader.varint()):
                kind, at, _, _ = reader.u8(), reader.varint(), reader.varint(), reader.varint()
                listed.append((kind, at, reader.raw(32)))
            reader.end()
        except Damage:
            return None
        return listed

    def payload(self, at, digest):
        head = self.data[at : at + 80]
        plain, stored = struct.unpack("<II", head[8:16])
        key = derive(self.data_key, b"pacsimile frame v1", digest)
        content = unseal(key, head[16:28], head[:28], self.data[at + 80 : at + 96 + stored], f"the frame at byte {at} of {self.path}")
        if head[5] & 1:
            content = decompress(content, plain + head[6])
        if head[6] == 1:
            content = unfilter(content)
        if len(content) != plain or blake3(content) != digest:
            raise Damage(f"the frame at byte {at} of {self.path} is not what its digest names")
        return content


# ---- records -----------------------------------------------------------------------------------------------------------

KINDS = ["epoch", "volume", "put", "remove", "rename", "sweep", "gap", "coverage", "mark", "lost"]
REASONS = ["first", "state-lost", "rewound", "forked", "damaged"]
MODES = ["complete", "best-effort"]
FILE_KINDS = ["file", "directory", "symlink", "fifo", "socket", "character-device", "block-device"]
CONSISTENCIES = ["stable", "crash-consistent", "unverified", "torn"]


def choose(names, number, what):
    if not 1 <= number <= len(names):
        raise Refused(f"{what} {number} is not known")
    return names[number - 1]


def decode_version(r):
    version = {"kind": choose(FILE_KINDS, r.u8(), "kind of file")}
    version.update(mode=r.varint(0o7777), uid=r.varint(0xFFFFFFFF), gid=r.varint(0xFFFFFFFF))
    version.update(mtimeNs=r.number("q"), ctimeNs=r.number("q"), inode=r.number("Q"), links=r.varint(0xFFFFFFFF))
    xattrs, total = [], 0
    for _ in range(r.varint(1024)):
        name, value = r.string(255), r.string(1 << 20)
        total += len(name) + len(value)
        if not name or b"\0" in name or total > 1 << 20 or (xattrs and xattrs[-1]["name"] >= name):
            raise Damage("bad xattr")
        xattrs.append({"name": name, "value": value})
    version["xattrs"] = xattrs
    if version["kind"] == "file":
        version.update(consistency=choose(CONSISTENCIES, r.u8(), "consistency"), size=r.varint(), digest=r.raw(32))
        version["chunks"] = [{"digest": r.raw(32), "length": r.varint(16 << 20)} for _ in range(r.varint(1 << 22))]
        if sum(chunk["length"] for chunk in version["chunks"]) != version["size"] or any(not chunk["length"] for chunk in version["chunks"]):
            raise Damage("chunks do not add up")
    elif version["kind"] == "symlink":
        version["target"] = r.string(4096)
    elif version["kind"].endswith("device"):
        version["device"] = r.number("Q")
    extensions = []
    for _ in range(r.varint(256)):
        tag = r.varint(65535)
        if tag < 128:
            raise Refused(f"a version with the critical field {tag}")
        if extensions and extensions[-1]["tag"] >= tag:
            raise Damage("extension fields out of order")
        extensions.append({"tag": tag, "value": r.string(1 << 20)})
    if extensions:
        version["extensions"] = extensions
    version.update(additions(version, {extension["tag"]: extension["value"] for extension in extensions}))
    return version


def additions(version, values):
    """What the extension fields say; one that is not as it should be counts as absent."""
    found = {}
    for tag, decode in ((128, decode_holes), (129, decode_writer)):
        try:
            if tag in values:
                found.update(decode(Reader(values[tag]), version))
        except Damage:
            pass
    if 130 in values:
        found["inferred"] = True
    return found


def decode_holes(r, version):
    holes, end = [], 0
    for _ in range(r.varint(10000)):
        offset = end + r.varint()
        length = r.varint()
        end = offset + length
        if length == 0 or end > version.get("size", 0):
            raise Damage("bad hole")
        holes.append([offset, length])
    return {"holes": holes} if holes else {}


def decode_writer(r, _):
    return {"writer": {"pid": r.varint(0xFFFFFFFF), "uid": r.varint(0xFFFFFFFF), "executable": r.string(4096)}}


def decode_record(data):
    r = Reader(data)
    record = {"previous": r.raw(32), "epoch": r.u64(), "seq": r.u64(), "time": r.number("Q")}
    if record["epoch"] == 0 or record["seq"] == 0:
        raise Damage("epoch and seq start at 1")
    kind = record["kind"] = choose(KINDS, r.u8(), "kind of record")
    if (kind == "epoch") != (record["seq"] == 1):
        raise Damage("a record of kind epoch is the first, and the first only")
    if kind == "epoch":
        record.update(agent=label(r.string(64)), reason=choose(REASONS, r.u8(), "reason"))
        record.update(previousEpoch=r.u64(), previousHash=r.raw(32), nonce=r.raw(16))
    else:
        record["volume"] = label(r.string(64))
    if kind == "volume":
        record.update(root=r.string(4096), mode=choose(MODES, r.u8(), "mode"))
    if kind in ("put", "remove", "rename", "lost"):
        record["path"] = checked_path(r.string(4096))
    if kind == "put":
        record["version"] = decode_version(r)
    elif kind == "rename":
        record["to"] = checked_path(r.string(4096))
    elif kind == "lost":
        record["lostSeq"] = r.u64()
    elif kind == "sweep":
        record["since"] = r.u64()
    elif kind == "mark":
        record["name"] = r.text()
    elif kind in ("gap", "coverage"):
        record.update({"from": r.number("Q"), "until": r.number("Q")})
        if kind == "gap":
            record["cause"] = r.text()
        else:
            record["mode"] = choose(MODES, r.u8(), "mode")
    r.end()
    return record


# ---- the tree ----------------------------------------------------------------------------------------------------------


def is_within(path, directory):
    return directory == b"" or path == directory or path.startswith(directory + b"/")


def parent_of(path):
    return None if path == b"" else path.rpartition(b"/")[0]


def fold(records):
    """path -> (position, version, position of the put that brought the version)."""
    tree = {}

    def drop(directory, itself=True):
        for path in [path for path in tree if is_within(path, directory) and (itself or path != directory)]:
            del tree[path]

    for record in records:
        position = (record["epoch"], record["seq"])
        kind = record["kind"]
        if kind == "put":
            path, version = record["path"], record["version"]
            if version["kind"] != "directory" and path in tree and tree[path][1]["kind"] == "directory":
                drop(path, itself=False)
            tree[path] = (position, version, position)
        elif kind == "remove":
            drop(record["path"])
        elif kind == "rename":
            source, to = record["path"], record["to"]
            if is_within(source, to) or is_within(to, source):
                continue
            moved = {path: entry for path, entry in tree.items() if is_within(path, source)}
            if not moved:
                continue
            drop(source)
            drop(to)
            for path, (_, version, origin) in moved.items():
                tree[to + path[len(source) :]] = (position, version, origin)
        elif kind == "sweep":
            since = (record["epoch"], record["since"])
            keep = set()
            for path, entry in tree.items():
                if entry[0] >= since:
                    while path is not None:
                        keep.add(path)
                        path = parent_of(path)
            for path in [path for path, entry in tree.items() if path not in keep]:
                del tree[path]
    return dict(sorted(tree.items(), key=lambda item: item[0].replace(b"/", b"\0")))


def hard_link_key(version):
    if version["kind"] == "directory" or version["links"] < 2:
        return None
    return tuple(version.get(name) for name in ("kind", "inode", "mtimeNs", "mode", "uid", "gid", "digest"))


# ---- the repository ----------------------------------------------------------------------------------------------------


class Repository:
    def __init__(self, directory, kind, secret):
        self.damage = []
        with open(os.path.join(directory, "repository.json"), encoding="utf-8") as file:
            about = json.load(file)
        if about.get("format") != "pacsimile repository" or about.get("version") != 1:
            raise Refused("not a repository of version 1")
        self.id = about["id"]
        self.data_key = open_keys(directory, self.id, kind, secret)
        self.chunks = {}
        for file, frames in self.files(directory, "packs", "pack", b"P"):
            for frame_type, at, digest in frames:
                if frame_type == 1:
                    self.chunks.setdefault(digest, []).append((file, at))
        self.agents = {}
        self.ends = {}
        for file, frames in self.files(directory, "segments", "seg", b"S"):
            for frame_type, at, digest in frames:
                if frame_type == 2:
                    try:
                        self.take(file.payload(at, digest))
                    except Damage as error:
                        self.damaged(str(error))

    def damaged(self, text):
        self.damage.append(text)

    def files(self, directory, shelves, suffix, kind):
        found = []
        for shelf in os.listdir(os.path.join(directory, shelves)):
            for name in os.listdir(os.path.join(directory, shelves, shelf)):
                match = re.fullmatch(r"([0-9a-f]{10}([0-9a-f]{2}))\." + suffix, name)
                if match and match[2] == shelf:
                    found.append((int(match[1], 16), os.path.join(directory, shelves, shelf, name)))
        for number, path in sorted(found):
            try:
                file = FrameFile(self, kind, number, path)
            except Damage as error:
                self.damaged(str(error))
                continue
            listed = file.index()
            read = list(file.frames(self.damaged))
            if listed is not None and listed != read:
                self.damaged(f"{path}: the index does not list what is there")
            yield file, read

    def take(self, payload):
        r = Reader(payload)
        agent = label(r.string(64))
        encoded = [r.string(192 << 20) for _ in range(r.varint(4096))]
        r.end()
        records = self.agents.setdefault(agent, [])
        for data in encoded:
            record = decode_record(data)
            position = (record["epoch"], record["seq"])
            last, last_hash, last_time = self.ends.get(agent, ((0, 0), bytes(32), 0))
            if position <= last:
                continue
            if record["epoch"] != last[0]:
                last, last_hash, last_time = (record["epoch"], 0), bytes(32), 0
            if record["seq"] != last[1] + 1 or record["previous"] != last_hash or record["time"] < last_time:
                self.damaged(f"{agent}: the history is broken before {position}")
            if record["kind"] == "epoch" and record["agent"] != agent:
                raise Damage(f"{agent}: record {position} is of {record['agent']}")
            records.append(record)
            self.ends[agent] = (position, blake3(data), record["time"])

    def position(self, agent, at):
        records = self.agents[agent]
        if at is None:
            return records[-1]["epoch"], records[-1]["seq"]
        if ":" in at:
            epoch, seq = at.split(":")
            return int(epoch), int(seq)
        until = int(at) * 65536 + 65535
        first = {}
        for record in records:
            first.setdefault(record["epoch"], record["time"])
        epochs = [epoch for epoch, time in first.items() if time <= until]
        if not epochs:
            raise Refused("no state at that time")
        return max((r["epoch"], r["seq"]) for r in records if r["epoch"] == max(epochs) and r["time"] <= until)

    def tree(self, agent, volume, at):
        position = self.position(agent, at)
        records = [record for record in self.agents[agent] if record.get("volume") == volume]
        lost = {(record["epoch"], record["lostSeq"]) for record in records if record["kind"] == "lost"}
        return position, lost, fold(record for record in records if (record["epoch"], record["seq"]) <= position)

    def content(self, version):
        parts = []
        for chunk in version["chunks"]:
            for file, at in self.chunks.get(chunk["digest"], []):
                try:
                    parts.append(file.payload(at, chunk["digest"]))
                    break
                except Damage as error:
                    self.damaged(str(error))
            else:
                raise Damage("a chunk is nowhere whole")
        content = b"".join(parts)
        if len(content) != version["size"] or blake3(content) != version["digest"]:
            raise Damage("the content is not what its digest names")
        return content


# ---- output ------------------------------------------------------------------------------------------------------------

DIGITS = {"time", "from", "until", "mtimeNs", "ctimeNs", "inode", "device"}


def plain(value, name=None):
    """Bytes are shown as they are where they are printable ASCII, else in hex; 64-bit numbers as digits."""
    if isinstance(value, bytes):
        return value.decode("ascii") if re.fullmatch(rb"[\x20-\x7e]*", value) else "hex:" + value.hex()
    if isinstance(value, dict):
        return {key: plain(field, key) for key, field in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if name in DIGITS and isinstance(value, int) else value


def list_tree(repository, agent, volume, at):
    position, lost, tree = repository.tree(agent, volume, at)
    first, entries = {}, []
    for path, (set_by, version, origin) in tree.items():
        entry = {"path": path, "epoch": set_by[0], "seq": set_by[1]}
        entry.update({name: version[name] for name in ("kind", "mode", "uid", "gid", "mtimeNs", "links")})
        entry["xattrs"] = [[xattr["name"], xattr["value"]] for xattr in version["xattrs"]]
        entry.update({name: version[name] for name in ("consistency", "size", "target", "device") if name in version})
        entry.update({name: version[name] for name in ("holes", "writer", "inferred") if name in version})
        if version["kind"] == "file":
            entry["digest"] = version["digest"].hex()
        if origin in lost:
            entry["lost"] = True
        key = hard_link_key(version)
        if key in first and key is not None:
            entry["sameAs"] = first[key]
        elif key is not None:
            first[key] = path
        entries.append(plain(entry))
    return {"agent": agent, "volume": volume, "epoch": position[0], "seq": position[1], "tree": entries}


def extract(repository, agent, volume, target, at):
    _, lost, tree = repository.tree(agent, volume, at)
    target = os.fsencode(target)
    os.mkdir(target, 0o700)
    first, directories = {}, []
    for path, (_, version, origin) in tree.items():
        place = os.path.join(target, path) if path else target
        key = hard_link_key(version)
        if version["kind"] == "directory":
            if path:
                os.mkdir(place, 0o700)
            directories.append((place, version))
        elif key is not None and key in first:
            os.link(first[key], place, follow_symlinks=False)
        elif version["kind"] == "symlink":
            os.symlink(version["target"], place)
        elif version["kind"] == "file" and origin not in lost:
            try:
                content = repository.content(version)
            except Damage as error:
                repository.damaged(f"{plain(path)}: {error}")
                continue
            with open(place, "xb") as file:
                write_sparse(file, content, version.get("holes", []))
            finish(place, version)
            if key is not None:
                first[key] = place
        else:
            print(f"{plain(path)}: left out", file=sys.stderr)
    for place, version in reversed(directories):
        finish(place, version)


def write_sparse(file, content, holes):
    """Leaves out what is zero in a hole that is named."""
    at = 0
    for offset, length in holes:
        file.write(content[at:offset])
        at = offset + length
        if any(content[offset:at]):
            file.write(content[offset:at])
        else:
            file.seek(length, os.SEEK_CUR)
    file.write(content[at:])
    file.truncate(len(content))


def finish(place, version):
    for xattr in version["xattrs"]:
        try:
            os.setxattr(place, xattr["name"], xattr["value"])
        except OSError as error:
            print(f"{place!r}: {error}", file=sys.stderr)
    if os.geteuid() == 0:
        os.chown(place, version["uid"], version["gid"])
    os.chmod(place, version["mode"] & (0o7777 if version["kind"] == "directory" else 0o1777))
    os.utime(place, ns=(version["mtimeNs"], version["mtimeNs"]))


def main(arguments):
    if len(arguments) < 3:
        raise SystemExit(__doc__)
    repository = Repository(arguments[1], *parse_secret(arguments[0]))
    command, rest = arguments[2], arguments[3:]
    if command == "records" and not rest:
        result = [{"agent": agent, "records": plain(records)} for agent, records in sorted(repository.agents.items())]
        print(json.dumps(result))
    elif command == "tree" and len(rest) in (2, 3):
        print(json.dumps(list_tree(repository, rest[0], rest[1], rest[2] if len(rest) == 3 else None)))
    elif command == "extract" and len(rest) in (3, 4):
        extract(repository, rest[0], rest[1], rest[2], rest[3] if len(rest) == 4 else None)
    else:
        raise SystemExit(__doc__)
    for text in repository.damage:
        print(text, file=sys.stderr)
    return 3 if repository.damage else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Refused as error:
        print(f"refused: {error}", file=sys.stderr)
        sys.exit(11)
