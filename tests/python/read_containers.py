"""Reads the containers of a named segment by what `shm-layouts/SPEC.md` and `layouts.json` say, and by nothing else.

read_containers.py LAYOUTS SEGMENT prints a line for each dict, namespace and list: its name, a tab, and its elements in order as JSON.
Bytes are shown as {"bytes": hex}. Every key of a dict is also looked for by its hash, as NOD-2 and DIC-1 say.
"""

import json
import mmap
import struct
import sys

MASK = (1 << 64) - 1


class Layouts:
    """Offsets, fields of words and constants, as generated for other languages."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            layouts = json.load(file)
        self.fields = {
            layout["name"]: {field["name"]: field for field in layout["fields"]} for layout in layouts["structs"]
        }
        self.sizes = {layout["name"]: layout["size"] for layout in layouts["structs"]}
        self.words = {word["name"]: word["fields"] for word in layouts["words"]}
        self.constants = {constant["name"]: constant["value"] for constant in layouts["constants"]}

    def unpack(self, word, value):
        return {field["name"]: value >> field["shift"] & (1 << field["bits"]) - 1 for field in self.words[word]}


class Reader:
    def __init__(self, layouts, name):
        self.layouts = layouts
        with open("/dev/shm/shmkit." + name, "rb") as file:
            self.bytes = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        assert self.bytes[:8] == b"SHMKIT\x1a\n", "SEG-5"
        self.heap = self.get("SegmentHeader", 0, "heap_offset")
        self.unit = self.get("SegmentHeader", 0, "unit_size")

    def word(self, offset):
        return struct.unpack_from("=Q", self.bytes, offset)[0]

    def get(self, layout, start, field):
        described = self.layouts.fields[layout][field]
        code = {1: "B", 2: "H", 4: "I", 8: "Q"}[described["size"]]
        return struct.unpack_from("=" + code, self.bytes, start + described["offset"])[0]

    def objects(self):
        """OBJ-4, OBJ-5: name, kind and where the kind's own struct starts."""
        table, size = self.get("SegmentHeader", 0, "objects_offset"), self.layouts.sizes["ObjectEntry"]
        for index in range(self.get("SegmentHeader", 0, "objects_high")):
            entry = table + index * size
            state = self.layouts.unpack("Entry", self.get("ObjectEntry", entry, "word"))["state"]
            name = self.layouts.fields["ObjectEntry"]["name"]
            start = entry + name["offset"]
            name = self.bytes[start : start + name["size"]].rstrip(b"\0").decode()
            if state == self.layouts.constants["ENTRY_LIVE"] and name:
                extent = self.layouts.unpack("ExtentRef", self.get("ObjectEntry", entry, "body"))
                unit = extent["unit_plus_1"] - 1
                body = self.heap + unit * self.unit + self.layouts.sizes["ObjectHeader"]
                yield name, self.get("ObjectEntry", entry, "kind"), body

    def block(self, link):
        """ARE-1: where the block of a link starts. Its generation has the link's low bits."""
        named = self.layouts.unpack("Link", link)
        offset = named["place"] * 16
        piece = self.layouts.unpack("Piece", self.word(offset))
        assert piece["generation"] & (1 << 27) - 1 == named["generation"], "ARE-1"
        assert piece["state"] == self.layouts.constants["PIECE_COMMITTED"], "ARE-1"
        return offset, piece["anchored"]

    def value(self, tag, data):
        """MSG-2."""
        constants = self.layouts.constants
        if tag == constants["TAG_NONE"]:
            return None
        if tag == constants["TAG_BOOL"]:
            return data != b"\0"
        if tag == constants["TAG_I64"]:
            return struct.unpack("=q", data)[0]
        if tag == constants["TAG_F64"]:
            return struct.unpack("=d", data)[0]
        if tag == constants["TAG_UTF8"]:
            return data.decode()
        assert tag == constants["TAG_BYTES"], tag
        return {"bytes": data.hex()}

    def node(self, link):
        """NOD-1: key and value, and the hash's ingredients of the key."""
        offset, anchored = self.block(link)
        info = self.layouts.unpack("NodeInfo", self.get("NodeHeader", offset, "info"))
        start = offset + self.layouts.sizes["NodeHeader"] + 8 * anchored
        key = self.bytes[start : start + info["key_len"]]
        start += (info["key_len"] + 7) // 8 * 8
        value = self.bytes[start : start + info["value_len"]]
        return info["key_tag"], key, self.value(info["value_tag"], value)

    def hash(self, seed, tag, key):
        """NOD-2."""

        def fold(a, b):
            product = a * b
            return (product & MASK) ^ (product >> 64)

        state = seed ^ (tag * 0x9E3779B97F4A7C15 & MASK)
        padded = key + bytes(-len(key) % 8)
        for (word,) in struct.iter_unpack("=Q", padded):
            state = fold(state ^ word, 0x9E3779B97F4A7C15)
        return fold(state ^ len(key), 0xD6E8FEB86659FD93) & 0xFFFFFFFF

    def dict(self, body):
        root, seed = self.get("DictBody", body, "root"), self.get("DictBody", body, "seed")
        if root == 0:
            return []
        table, constants = self.block(root)[0], self.layouts.constants
        slots, capacity = (self.get("TableHeader", table, field) for field in ("slots", "capacity"))
        assert capacity == 2 * slots // 3, "DIC-1"
        start = table + self.layouts.sizes["TableHeader"]
        pages = self.get("TableHeader", table, "count")

        def page(number):
            return self.block(self.word(start + number * 8))[0] + 16

        def index(number):
            if not pages:
                return self.word(start + number * 8)
            size = constants["DICT_INDEX_PAGE"]
            return self.word(page(number // size) + number % size * 8)

        def entry(number):
            if not pages:
                return self.word(start + slots * 8 + number * 16)
            size = constants["DICT_ENTRY_PAGE"]
            return self.word(page(slots // constants["DICT_INDEX_PAGE"] + number // size) + number % size * 16)

        def find(tag, key):
            wanted = self.hash(seed, tag, key)
            for step in range(slots):
                slot = self.layouts.unpack("IndexSlot", index((wanted + step) % slots))
                if slot["entry_plus_1"] == 0:
                    return None
                if slot["hash"] == wanted:
                    link = entry(slot["entry_plus_1"] - 1)
                    if link not in (0, constants["LINK_DELETED"]):
                        found_tag, found_key, value = self.node(link)
                        if (found_tag, found_key) == (tag, key):
                            return (value,)
            return None

        items = []
        for number in range(capacity):
            link = entry(number)
            if link == 0:
                break
            if link != constants["LINK_DELETED"]:
                tag, key, value = self.node(link)
                assert find(tag, key) == (value,), ("DIC-1", key)
                items.append([self.value(tag, key), value])
        assert find(constants["TAG_UTF8"], b"no such key") is None
        return items

    def small(self, word):
        """LIS-1: an element in its slot."""
        small = self.layouts.unpack("Small", word)
        data = small["data"].to_bytes(7, sys.byteorder)
        if small["tag"] == self.layouts.constants["TAG_I64"]:
            return int.from_bytes(data, sys.byteorder, signed=True)
        if small["tag"] == self.layouts.constants["TAG_F64"]:
            return struct.unpack("=d", (small["data"] << 8).to_bytes(8, sys.byteorder))[0]
        return self.value(small["tag"], data[: small["len"]])

    def list(self, body):
        root = self.get("ListBody", body, "root")
        if root == 0:
            return []
        directory = self.block(root)[0]
        count = self.get("DirectoryHeader", directory, "count")
        links = directory + self.layouts.sizes["DirectoryHeader"]
        elements = []
        for number in range(count):
            link = self.word(links + number * 8)
            if link == 0:
                break
            first = self.word(links + (count + number) * 8)
            assert first == len(elements), "LIS-1"
            chunk = self.block(link)[0]
            slots = chunk + self.layouts.sizes["ChunkHeader"]
            for slot in range(self.get("ChunkHeader", chunk, "capacity")):
                word = self.word(slots + slot * 8)
                if word == 0:
                    break
                small = self.layouts.unpack("Link", word)["is_small"]
                elements.append(self.small(word) if small else self.node(word)[2])
        return elements


def main(layouts, name):
    reader = Reader(Layouts(layouts), name)
    constants = reader.layouts.constants
    for name, kind, body in reader.objects():
        if kind in (constants["KIND_DICT"], constants["KIND_NAMESPACE"]):
            print(name, json.dumps(reader.dict(body)), sep="\t")
        elif kind == constants["KIND_LIST"]:
            print(name, json.dumps(reader.list(body)), sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])
