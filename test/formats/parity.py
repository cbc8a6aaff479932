"""Verifies and repairs a file of frames from its parity. Written from docs/format.md, "Parity", alone; needs no key.

    parity.py FILE          JSON: the stripes, the damaged blocks by offset, whether the parity is that of the region
    parity.py FILE OUT      the same, and OUT becomes the file with the blocks that could be made again
"""

import json
import struct
import sys
import zlib


def multiply(a, b):
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return product


def power(base, exponent):
    result = 1
    for _ in range(exponent):
        result = multiply(result, base)
    return result


INVERSE = {a: b for a in range(1, 256) for b in range(1, 256) if multiply(a, b) == 1}


def inverted(matrix):
    size = len(matrix)
    rows = [list(row) + [int(i == j) for j in range(size)] for i, row in enumerate(matrix)]
    for column in range(size):
        pivot = next(i for i in range(column, size) if rows[i][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        scale = INVERSE[rows[column][column]]
        rows[column] = [multiply(value, scale) for value in rows[column]]
        for i in range(size):
            if i != column and rows[i][column]:
                factor = rows[i][column]
                rows[i] = [a ^ multiply(factor, b) for a, b in zip(rows[i], rows[column])]
    return [row[size:] for row in rows]


def code(data_blocks, parity_blocks):
    vandermonde = [[power(row, column) for column in range(data_blocks)] for row in range(data_blocks + parity_blocks)]
    top = inverted(vandermonde[:data_blocks])
    return [[dot(row, column) for column in zip(*top)] for row in vandermonde]


def dot(a, b):
    total = 0
    for x, y in zip(a, b):
        total ^= multiply(x, y)
    return total


def combine(row, blocks):
    total = 0
    for factor, block in zip(row, blocks):
        table = bytes(multiply(factor, value) for value in range(256))
        total ^= int.from_bytes(block.translate(table), "big")
    return total.to_bytes(len(blocks[0]), "big")


def parity_frames(data):
    at = data.find(b"PcF1")
    while at >= 0:
        head = data[at : at + 80]
        length = 1
        if len(head) == 80 and head[4] == 128 and zlib.crc32(head[:76]) == struct.unpack("<I", head[76:])[0]:
            stored = struct.unpack("<I", head[12:16])[0]
            body = data[at + 80 : at + 100 + stored]
            if len(body) == stored + 20 and zlib.crc32(body[:-4]) == struct.unpack("<I", body[-4:])[0]:
                yield body[:stored]
                length = 100 + stored
        at = data.find(b"PcF1", at + length)


def main(path, out=None):
    with open(path, "rb") as file:
        data = bytearray(file.read())
    stripes, damaged, lost, agrees = 0, [], [], True
    matrix = None
    for payload in parity_frames(bytes(data)):
        region, size, count, number, k, m = struct.unpack("<QIIIBB", payload[:22])
        sums = struct.unpack(f"<{k}I", payload[22 : 22 + 4 * k])
        parity = [payload[22 + 4 * k + i * size : 22 + 4 * k + (i + 1) * size] for i in range(m)]
        matrix = matrix or code(k, m)
        offsets = [(place * count + number) * size for place in range(k)]
        blocks = [bytes(data[at : min(at + size, region)]).ljust(size, b"\0") if at < region else bytes(size) for at in offsets]
        bad = [place for place in range(k) if zlib.crc32(blocks[place]) != sums[place]]
        stripes += 1
        damaged += [offsets[place] for place in bad]
        if len(bad) > m:
            lost += [offsets[place] for place in bad]
            continue
        if bad:
            whole = [(matrix[place], blocks[place]) for place in range(k) if place not in bad]
            used = (whole + [(matrix[k + i], parity[i]) for i in range(m)])[:k]
            rows = inverted([row for row, _ in used])
            for place in bad:
                blocks[place] = combine(rows[place], [block for _, block in used])
                assert zlib.crc32(blocks[place]) == sums[place]
                end = min(offsets[place] + size, region)
                data[offsets[place] : end] = blocks[place][: end - offsets[place]]
        agrees = agrees and [combine(row, blocks) for row in matrix[k:]] == parity
    if out is not None:
        with open(out, "wb") as file:
            file.write(data)
    print(json.dumps({"stripes": stripes, "damaged": sorted(damaged), "lost": sorted(lost), "agrees": agrees}))


if __name__ == "__main__":
    main(*sys.argv[1:])
