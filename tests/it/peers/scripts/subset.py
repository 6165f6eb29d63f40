"""Whether a subset of xDS is what upstream says: `subset.py DIRECTORY` compares its `.proto` files and `upstream.txt` with the
descriptors of xds-protos, and prints what differs; at the end how many messages and fields it has compared.
"""

import importlib
import pathlib
import re
import sys

HERE = pathlib.Path(sys.prefix, "xds")
sys.path.insert(0, str(HERE))

from google.protobuf import descriptor_pool  # noqa: E402

SCALARS = {1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 8: "bool", 9: "string", 12: "bytes", 13: "uint32"}
FIELD = re.compile(r"(repeated )?([\w.]+|map<\w+, [\w.]+>) (\w+) = (\d+);")


def upstream():
    for path in sorted(HERE.glob("envoy/**/*_pb2.py")) + [HERE / "google/rpc/status_pb2.py"]:
        try:
            importlib.import_module(".".join(path.relative_to(HERE).with_suffix("").parts))
        except (ImportError, TypeError):
            # What these need is not installed, and nobody here refers to it.
            continue
    return descriptor_pool.Default()


def read(path):
    """The messages of a file by full name, each as {field: (number, type, oneof)}, and the enums, each as {value: number}."""
    messages, enums, scope = {}, {}, []
    for line in path.read_text().splitlines():
        line = line.split("//")[0].strip()
        if match := re.match(r"package ([\w.]+);", line):
            scope = [("package", match[1])]
        elif match := re.match(r"(message|enum|oneof) (\w+) \{(\})?", line):
            scope.append((match[1], match[2]))
            name = ".".join(part for kind, part in scope if kind != "oneof")
            if match[1] != "oneof":
                (messages if match[1] == "message" else enums).setdefault(name, {})
            if match[3]:
                scope.pop()
        elif line == "}":
            scope.pop()
        elif match := FIELD.match(line):
            name = ".".join(part for kind, part in scope if kind != "oneof")
            oneof = scope[-1][1] if scope[-1][0] == "oneof" else None
            messages[name][match[3]] = (int(match[4]), (match[1] or "") + match[2], oneof)
        elif scope and scope[-1][0] == "enum" and (match := re.match(r"(\w+) = (\d+);", line)):
            enums[".".join(part for _, part in scope)][match[1]] = int(match[2])
    return messages, enums


def named(field):
    if field.type == 11:
        return "." + field.message_type.full_name
    return "." + field.enum_type.full_name if field.type == 14 else SCALARS[field.type]


def typed(field):
    if field.message_type and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name
        return f"map<{named(entry['key'])}, {named(entry['value'])}>"
    return ("repeated " if field.is_repeated else "") + named(field)


def oneof(field):
    of = field.containing_oneof
    return of.name if of is not None and not of.name.startswith("_") else None


def main(root):
    pool, wrong, counted = upstream(), [], [0, 0]
    absent = {}
    for line in pathlib.Path(root, "upstream.txt").read_text().splitlines():
        if not line.startswith("#"):
            message, number, name = line.split()[:3]
            absent.setdefault(message, {})[name] = int(number)
    ours = {}
    for path in sorted(pathlib.Path(root, "envoy").rglob("*.proto")) + sorted(pathlib.Path(root, "google").rglob("*.proto")):
        messages, enums = read(path)
        ours |= messages
        for name, values in enums.items():
            theirs = {value.name: value.number for value in pool.FindEnumTypeByName(name).values}
            if values != theirs:
                wrong.append(f"{name}: {values}, and upstream {theirs}")
    for name, fields in ours.items():
        theirs = pool.FindMessageTypeByName(name).fields_by_name
        counted[0] += 1
        for field, said in fields.items():
            counted[1] += 1
            meant = theirs.get(field)
            meant = meant and (meant.number, typed(meant), oneof(meant))
            if said != meant:
                wrong.append(f"{name}.{field}: {said}, and upstream {meant}")
        # What is said on the stream is not walked.
        if name.startswith("envoy.service.") or name.startswith("google.") or name.endswith(".Node"):
            continue
        rest = {field.name: field.number for field in theirs.values() if field.name not in fields}
        if rest != absent.pop(name, {}):
            wrong.append(f"{name}: upstream.txt does not say what else there is: {rest}")
    wrong += [f"{name}: upstream.txt names it, and it is not there" for name in absent]
    print("\n".join(wrong + [f"{counted[0]} messages, {counted[1]} fields"]))


main(*sys.argv[1:])
