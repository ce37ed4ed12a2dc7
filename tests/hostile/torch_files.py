"""What torch's own loaders would run: .pt2 programs, state dicts and TorchScript, and the zip archives around them."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tests.hostile import SERVED, TRUST, Hostile, payload
from tests.hostile.made import Runs, members, zipped

MODEL = "archive/models/model.json"
WEIGHTS = "archive/data/weights/"
CONSTANTS = "archive/data/constants/"

Change = Callable[[dict[str, Any]], None]


# -- good files, to be changed ----------------------------------------------------------------------------------------


@cache
def program() -> bytes:
    """A small network, as torch.export.save writes it."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 2)).eval()
    batch = torch.export.Dim("batch")
    exported = torch.export.export(module, (torch.zeros(2, 3),), dynamic_shapes=({0: batch},))
    buffer = io.BytesIO()
    torch.export.save(exported, buffer, extra_files={"perch.output": "logits"})
    return buffer.getvalue()


@cache
def state_dict() -> bytes:
    """The same layers and their weights, as torch.save writes them."""
    import torch
    from torch import nn

    from perch.export.torch_export import export_state_dict

    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval()
    return _written(lambda path: export_state_dict(module, path, output="logits"), "model.pt")


@cache
def script() -> bytes:
    """The same as TorchScript, with its signature."""
    import torch
    from torch import nn

    from perch.export.torch_programs import export_torchscript

    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    return _written(lambda path: export_torchscript(module, path, torch.zeros(2, 3)), "model.ts")


def _written(write: Callable[[Path], None], name: str) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path)
        return path.read_bytes()


def reprogrammed(change: Change, member: str = MODEL) -> bytes:
    """The program with a change to its JSON."""
    entries = members(program())
    document = json.loads(entries[member])
    change(document)
    return zipped(entries | {member: json.dumps(document).encode()})


def with_node(target: str, *arguments: dict[str, Any]) -> bytes:
    """The program with a first step that calls something, and whose result the next step takes."""

    def change(document: dict[str, Any]) -> None:
        graph = document["graph_module"]["graph"]
        given = arguments or ({"as_tensor": {"name": "input"}},)
        name = graph["inputs"][-1]["as_tensor"]["name"]
        given = tuple(
            {"as_tensor": {"name": name}} if one == {"as_tensor": {"name": "input"}} else one for one in given
        )
        node = {
            "target": target,
            "inputs": [{"name": f"a{i}", "arg": one, "kind": 1} for i, one in enumerate(given)],
            "outputs": [{"as_tensor": {"name": "first"}}],
            "metadata": {},
        }
        graph["nodes"].insert(0, node)
        graph["nodes"][1]["inputs"][0]["arg"] = {"as_tensor": {"name": "first"}}

    return reprogrammed(change)


def _meta(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["graph_module"]["graph"]["tensor_values"]
    return found


def _input(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = _meta(document)[document["graph_module"]["graph"]["inputs"][-1]["as_tensor"]["name"]]
    return found


# -- the files ------------------------------------------------------------------------------------------------------


def hostile(trap: Path) -> Iterator[Hostile]:
    """Every kind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from _programs(trap)
        yield from _graphs(trap)
        yield from _archives(trap)
        yield from _states(trap)
        yield from _scripts(trap)


def _programs(trap: Path) -> Iterator[Hostile]:
    command = pickle.dumps(Runs(os.system, payload(trap)), 2)
    saved = zipped({"archive/data.pkl": command, "archive/version": b"3\n"})
    code = f"__import__('os').system('{payload(trap)}')"

    def case(title: str, data: bytes, threat: str, words: str, verdict: str = "refused") -> Hostile:
        return Hostile(title=f".pt2, {title}", file="model.pt2", data=data, threat=threat, words=words, verdict=verdict)

    yield case(
        "weights as one pickle",
        zipped(members(program()) | {f"{WEIGHTS}model.pt": saved}),
        "torch.export.load unpickles them with weights_only=False",
        "is a pickle of weights",
    )

    def pickled(document: dict[str, Any]) -> None:
        next(iter(document["config"].values()))["use_pickle"] = True

    yield case(
        "one weight as a pickle",
        zipped(members(reprogrammed(pickled, WEIGHTS + "model_weights_config.json")) | {f"{WEIGHTS}weight_0": saved}),
        "torch.export.load unpickles it",
        "is kept as a pickle",
    )
    for kind in ("opaque_obj_0", "custom_obj_0"):

        def constant(document: dict[str, Any], kind: str = kind) -> None:
            document["config"]["c"] = {"path_name": kind, "is_param": False, "use_pickle": True, "tensor_meta": None}

        yield case(
            f"a constant called {kind}",
            zipped(
                members(reprogrammed(constant, CONSTANTS + "model_constants_config.json"))
                | {f"{CONSTANTS}{kind}": command}
            ),
            "torch.export.load unpickles it",
            "holds an object as a pickle",
        )
        yield case(
            f"a table that names {kind}, without the member",
            reprogrammed(constant, CONSTANTS + "model_constants_config.json"),
            "torch.export.load unpickles what it finds there",
            "is kept as a pickle",
        )
    yield case(
        "sample inputs",
        zipped(members(program()) | {"archive/data/sample_inputs/model.pt": saved}),
        "torch.export.load tries them with weights_only=False when all else fails",
        "would import 'posix.system'",
    )
    yield case(
        "a compiled library",
        zipped(members(program()) | {"archive/data/aotinductor/model/model.so": b"\x7fELF"}),
        "torch.export.load opens it, and its constructors run",
        "holds a compiled library",
    )
    yield case(
        "a second program",
        zipped(members(program()) | {"archive/models/other.json": members(program())[MODEL]}),
        "another loader takes the other one",
        "is a second program",
    )
    yield case(
        "an expression in the size of an input",
        reprogrammed(lambda d: _input(d)["sizes"][0].update(as_expr={"expr_str": code})),
        "torch hands it to sympify, which evaluates it",
        "an expression that is no arithmetic",
    )
    yield case(
        "an expression in the size of a value in between",
        reprogrammed(lambda d: next(iter(_meta(d).values()))["sizes"].append({"as_expr": {"expr_str": code}})),
        "torch hands it to sympify, which evaluates it",
        "an expression that is no arithmetic",
    )
    yield case(
        "a guard that is code",
        reprogrammed(lambda d: d.update(guards_code=[code])),
        "ExportedProgram.module() compiles and runs it",
        "is not a comparison of sizes",
    )
    yield case(
        "a guard that takes for ever to read",
        reprogrammed(lambda d: d.update(guards_code=["L['x'].size()[0] == " + "1" * 1500 + "!"])),
        "a careless pattern tries every way to split the digits",
        "is not a comparison of sizes",
    )
    yield case(
        "JSON nested a hundred thousand deep",
        zipped(members(program()) | {MODEL: b'{"a":' * 100_000}),
        "fills the stack of whoever parses it",
        "is not readable JSON",
    )
    yield case(
        "a number of a million digits",
        zipped(members(program()) | {MODEL: b'{"a":' + b"9" * 1_000_000 + b"}"}),
        "takes minutes to become a number",
        "is not readable JSON",
    )


def _training(document: dict[str, Any], **more: str) -> None:
    for node in document["graph_module"]["graph"]["nodes"]:
        for entry in node["inputs"]:
            if entry["name"] in ("train", "training"):
                entry.update(arg={"as_bool": True}, **more)


def _renamed(document: dict[str, Any]) -> None:
    _training(document, name="momentum")


def _graphs(trap: Path) -> Iterator[Hostile]:
    def case(title: str, data: bytes, threat: str, words: str, verdict: str = "refused") -> Hostile:
        return Hostile(
            title=f".pt2 graph, {title}", file="model.pt2", data=data, threat=threat, words=words, verdict=verdict
        )

    text = {"as_string": str(trap)}
    for target, threat in (
        ("torch.ops.aten.from_file.default", "maps a file of the machine, and writes to it"),
        ("torch.ops.mylib.run.default", "calls a library's operator"),
        ("torch.ops.aten.rand.default", "answers at random"),
        ("torch.ops.aten.empty.memory_format", "answers with what lay in memory"),
        ("torch.ops.aten.as_strided.default", "reads beside what it was given"),
        ("torch.ops.aten.add.out", "writes where it is told to"),
        ("_operator.attrgetter", "reads any attribute"),
        ("_operator.pow", "makes a number without end"),
        ("builtins.eval", "evaluates Python"),
        ("os.system", "runs a command"),
        ("__main__", "is no operator"),
    ):
        yield case(f"calls {target}", with_node(target, text), threat, "is not on the list of operators")
    yield case(
        "calls torch.ops.higher_order.cond",
        with_node("torch.ops.higher_order.cond"),
        "runs a graph inside of the node",
        "runs a graph inside of the node",
    )
    yield case(
        "an object as an argument",
        with_node("torch.ops.aten.relu.default", {"as_custom_obj": {"name": "x", "class_fqn": "os.system"}}),
        "is unpickled and called",
        "an argument that is not served",
    )
    yield case(
        "a graph as an argument",
        with_node("torch.ops.aten.relu.default", {"as_graph": {"name": "g", "graph": {}}}),
        "is run by an operator",
        "an argument that is not served",
    )
    yield case(
        "a path as an argument",
        with_node("torch.ops.aten.gelu.default", {"as_tensor": {"name": "input"}}, text),
        "an operator that takes texts may take it for a file",
        "an argument that is not served",
    )
    yield case(
        "a value that no step makes",
        with_node("torch.ops.aten.relu.default", {"as_tensor": {"name": "nothing"}}),
        "reads a place that was never written",
        "an argument that is not served",
    )
    yield case(
        "writes into a weight",
        with_node("torch.ops.aten.zero_.default", {"as_tensor": {"name": "p_0_weight"}}),
        "changes the model for the requests that follow",
        "writes into a weight",
    )
    yield case(
        "writes into the request",
        with_node("torch.ops.aten.relu_.default"),
        "changes what is logged of the request",
        "writes into a weight or into its input",
    )
    yield case(
        "a number as large as memory",
        with_node("torch.ops.aten.relu.default", {"as_int": 10**30}),
        "overflows",
        "an argument that is not served",
    )

    yield case(
        "in training mode", reprogrammed(_training), "counts into its weights, answers at random", "in training mode"
    )

    yield case(
        "in training mode under another name",
        reprogrammed(_renamed),
        "as above; torch goes by the place of an argument, not by its name",
        "in training mode",
    )
    grid = [{"as_tensor": {"name": "input"}}, {"as_tensor": {"name": "input"}}]
    yield case(
        "a grid that is sampled in a mode that does not exist",
        with_node("torch.ops.aten.grid_sampler_2d.default", *grid, {"as_int": 0}, {"as_int": 9}, {"as_bool": False}),
        "reads whatever lies in memory where the request says",
        "none of torch's",
    )

    def squares(document: dict[str, Any]) -> None:
        graph = document["graph_module"]["graph"]
        name = graph["inputs"][-1]["as_tensor"]["name"]
        nodes = [
            {
                "target": "torch.ops.aten.sym_size.int",
                "inputs": [
                    {"name": "self", "arg": {"as_tensor": {"name": name}}, "kind": 1},
                    {"name": "dim", "arg": {"as_int": 1}, "kind": 1},
                ],
                "outputs": [{"as_sym_int": {"as_name": "s0"}}],
                "metadata": {},
            }
        ]
        for i in range(200):
            factor = {"as_sym_int": {"as_name": f"s{i}"}}
            nodes.append({
                "target": "_operator.mul",
                "inputs": [{"name": n, "arg": factor, "kind": 1} for n in "ab"],
                "outputs": [{"as_sym_int": {"as_name": f"s{i + 1}"}}],
                "metadata": {},
            })  # fmt: skip
        nodes.append({
            "target": "torch.ops.aten.full.default",
            "inputs": [
                {"name": "size", "arg": {"as_sym_ints": [{"as_name": "s200"}]}, "kind": 1},
                {"name": "fill_value", "arg": {"as_float": 1.0}, "kind": 1},
            ],
            "outputs": [{"as_tensor": {"name": "big"}}],
            "metadata": {},
        })  # fmt: skip
        nodes.append({
            "target": "torch.ops.aten.sum.default",
            "inputs": [{"name": "self", "arg": {"as_tensor": {"name": "big"}}, "kind": 1}],
            "outputs": [{"as_tensor": {"name": "total"}}],
            "metadata": {},
        })  # fmt: skip
        nodes.append({
            "target": "torch.ops.aten.add.Tensor",
            "inputs": [
                {"name": "self", "arg": {"as_tensor": {"name": name}}, "kind": 1},
                {"name": "other", "arg": {"as_tensor": {"name": "total"}}, "kind": 1},
            ],
            "outputs": [{"as_tensor": {"name": "sum_of_all"}}],
            "metadata": {},
        })  # fmt: skip
        graph["nodes"][0]["inputs"][0]["arg"] = {"as_tensor": {"name": "sum_of_all"}}
        graph["nodes"] = nodes + graph["nodes"]

    yield case(
        "squares a size two hundred times",
        reprogrammed(squares),
        "a number of 2^200 bits; the loader ends such arithmetic at 64, at its first run",
        "",
        SERVED,
    )


def _archives(trap: Path) -> Iterator[Hostile]:
    good = members(program())
    whole = zipped(good)

    def case(title: str, data: bytes, threat: str, words: str) -> Hostile:
        return Hostile(title=f"zip archive, {title}", file="model.pt2", data=data, threat=threat, words=words)

    for name in ("archive/../../../etc/cron.d/x", "/etc/cron.d/x", "archive/C:/x", "archive//x", "archive/./x", "a\\b"):
        yield case(
            f"a member called {name}", zipped(good | {name: b"x"}), "is written there when unpacked", "leads outside"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffer = io.BytesIO(whole)
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr(MODEL, b"{}")
        yield case("the program twice", buffer.getvalue(), "one reader takes the first, the other the last", "twice")
    yield case(
        "the program twice, capitalised",
        zipped(good | {"archive/models/MODEL.json": b"{}"}),
        "torch finds members whatever their capitals",
        "twice",
    )
    yield case("bytes before it", b"#!/bin/sh\n" + whole, "is a script as well", "not where its end says")
    yield case("bytes behind it", whole + b"PK", "is another archive for another reader", "bytes behind its end")
    yield case(
        "a comment that holds another end",
        whole[:-2] + struct.pack("<H", 22) + whole[-22:],
        "some readers find the first end, some the last",
        "not where its end says",
    )
    bomb = _bomb(good, 80_000_000)
    yield case("a bomb", bomb, "a few kilobytes become 80 MB", "at most 67,108,864 are inflated")
    yield case(
        "a bomb that says it is small",
        _retold(_bomb(good, 8_000_000), 8_000_000, 1_000),
        "becomes more than it declares",
        "does not inflate to the",
    )
    yield case(
        "a member longer than the file",
        _retold(whole, len(good[MODEL]), 2**31),
        "is read past the end",
        "longer than its place",
    )
    yield case("weights compressed", zipped(good, compress=True), "memory is not the file's size", "is compressed")
    at = whole.rindex(b"PK\x01\x02")
    yield case("encrypted", whole[: at + 8] + b"\x01" + whole[at + 9 :], "hides what it holds", "is encrypted")
    link = zipfile.ZipInfo("archive/extra/link")
    link.external_attr = 0o120777 << 16
    buffer = io.BytesIO(whole)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(link, str(trap))
    yield case("a link", buffer.getvalue(), "leads to a file of the machine when unpacked", "is a link")
    renamed = zipfile.ZipInfo("archive/extra/notes")
    renamed.extra = struct.pack("<2HBL", 0x7075, 5 + len(MODEL), 1, zlib.crc32(b"archive/extra/notes")) + MODEL.encode()
    buffer = io.BytesIO(whole)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(renamed, b"{}")
    yield case(
        "a member of two names",
        buffer.getvalue(),
        "is the program for readers that heed the second",
        "read in two ways",
    )
    [first] = struct.unpack("<L", whole[-6:-2])
    moved = bytearray(whole)
    moved[first + 42 : first + 46] = struct.pack("<L", 4)
    yield case("a member that begins inside of another", bytes(moved), "one byte is two things", "belong to no member")

    def table(change: Change) -> bytes:
        return reprogrammed(
            lambda d: change(d["config"]["0.weight"]["tensor_meta"]), WEIGHTS + "model_weights_config.json"
        )

    for title, change, words in (
        ("a weight of a petabyte", lambda m: m.update(sizes=[{"as_int": 2**40}, {"as_int": 3}]), "its storage has 48"),
        ("a weight of more digits than that", lambda m: m.update(sizes=[{"as_int": 10**40}]), "not a whole number"),
        (
            "a weight that begins behind its end",
            lambda m: m.update(storage_offset={"as_int": 1000}),
            "its storage has 48",
        ),
        (
            "a weight with strides below zero",
            lambda m: m["strides"].__setitem__(0, {"as_int": -3}),
            "not a whole number",
        ),
        (
            "a weight that repeats one number",
            lambda m: m.update(sizes=[{"as_int": 2**20}, {"as_int": 2**20}], strides=[{"as_int": 0}, {"as_int": 0}]),
            "repeats its numbers",
        ),
        ("a weight on a GPU", lambda m: m.update(device={"type": "cuda", "index": 0}), "export it on the CPU"),
        ("a weight of no known type", lambda m: m.update(dtype=99), "a type or layout that is not served"),
    ):
        yield Hostile(
            title=f".pt2, {title}",
            file="model.pt2",
            data=table(change),  # type: ignore[arg-type]  # lambdas of dicts
            threat="is read outside of its memory, or takes more than there is",
            words=words,
        )


def _bomb(entries: dict[str, bytes], size: int) -> bytes:
    """An archive with a member of so many zeros, compressed."""
    buffer = io.BytesIO(zipped(entries))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(zipfile.ZipInfo("archive/extra/bomb"), bytes(size), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _retold(data: bytes, size: int, told: int) -> bytes:
    """An archive in which a member of this size declares another one."""
    return data.replace(struct.pack("<L", size), struct.pack("<L", told))


def _states(trap: Path) -> Iterator[Hostile]:
    def case(title: str, data: bytes, threat: str, words: str, file: str = "model.pt") -> Hostile:
        return Hostile(title=f"torch.save, {title}", file=file, data=data, threat=threat, words=words)

    import torch
    from torch import nn

    good = members(state_dict())
    folder = next(iter(good)).split("/")[0] + "/"

    def saved(document: Any, *, new: bool = True, protocol: int = 2) -> bytes:
        buffer = io.BytesIO()
        torch.save(document, buffer, _use_new_zipfile_serialization=new, pickle_protocol=protocol)
        return buffer.getvalue()

    def with_pickle(data: bytes) -> bytes:
        return zipped(good | {f"{folder}data.pkl": data})

    command = Runs(os.system, payload(trap))
    layers = '[{"type": "Linear", "in_features": 1, "out_features": 1}]'
    state = nn.Linear(1, 1).state_dict()
    runs = "runs a command when it is unpickled"
    yield case(
        "a command beside the weights", saved({"perch.architecture": layers, "x": command}), runs, "would import"
    )
    yield case("a command among the weights", saved({"state_dict": {"0.weight": command}}), runs, "would import")
    yield case("a command, pickle protocol 4", saved([command], protocol=4), runs, "would import 'posix.system'")
    yield case("from before torch 1.6", saved(state, new=False), "is one pickle with all names allowed", "bare pickle")
    yield case(
        "a whole module", saved(nn.Linear(1, 1)), "imports its class", "would import 'torch.nn.modules.linear.Linear'"
    )
    yield case(
        "weights without layers", saved(state), "nobody knows what they are for", "which layers the tensors belong"
    )
    yield case("a list", saved([1, 2]), "is no state dict", "no dict of texts and tensors")
    yield case(
        "a pickle behind the pickle",
        with_pickle(good[f"{folder}data.pkl"] + pickle.dumps(command, 2)),
        "is read by whoever reads on",
        "bytes behind the end of its pickle",
    )
    yield case(
        "a second pickle in the archive",
        zipped(good | {f"{folder}more.pkl": pickle.dumps(command, 2)}),
        "is read by another reader",
        "is not one that torch.save writes",
    )
    yield case(
        "an attribute that is set", with_pickle(b"\x80\x02}}X\x01\x00\x00\x00aK\x01sb."), "changes a class", "sets attr"
    )
    yield case("an instruction of old", with_pickle(b"(S'ls'\nios\nsystem\n."), runs, "the pickle instruction")
    yield case("an instruction of extensions", with_pickle(b"\x80\x02\x82\x01)R."), "calls what is registered", "EXT1")
    yield case(
        "a class by way of NEWOBJ",
        with_pickle(b"\x80\x02ccollections\nOrderedDict\n)\x81."),
        "makes an object",
        "NEWOBJ",
    )
    yield case(
        "a name without use", with_pickle(b"\x80\x02ctorch\nFloatStorage\n."), "is handed on", "do not fit together"
    )
    yield case(
        "a number of megabytes", with_pickle(b"\x80\x02\x8b\xff\xff\xff\x7f1."), "is made first", "damaged pickle"
    )
    yield case(
        "a text longer than the file", with_pickle(b"\x80\x02X\xff\xff\xff\x7fa."), "is made first", "damaged pickle"
    )
    yield case(
        "a memory of nothing", with_pickle(b"\x80\x02h\x07."), "reads what was never written", "do not fit together"
    )
    yield case(
        "tuples a million deep",
        with_pickle(b"\x80\x02)" + b"\x85" * 1_000_000 + b"."),
        "fills the stack",
        "more than 500,000 instructions",
    )
    yield case(
        "a tensor outside of its storage",
        zipped(good | {f"{folder}data/0": b"\0"}),
        "is read outside of its memory",
        "its storage has 1",
    )
    yield case(
        "a tensor in another member",
        with_pickle(good[f"{folder}data.pkl"].replace(b"X\x01\x00\x00\x000q", b"X\x01\x00\x00\x00/q", 1)),
        "opens a file of that name",
        "a member with no number",
    )


def _scripts(trap: Path) -> Iterator[Hostile]:
    good = members(script())
    [code, *_] = [name for name in good if name.endswith(".py") and b"def forward" in good[name]]
    folder = code.split("/")[0] + "/"

    def case(
        title: str, data: bytes, threat: str, words: str, verdict: str = "refused", file: str = "model.ts"
    ) -> Hostile:
        return Hostile(title=f"TorchScript, {title}", file=file, data=data, threat=threat, words=words, verdict=verdict)

    def with_code(line: bytes) -> bytes:
        return zipped(good | {code: good[code].replace(b"    return", b"    " + line + b"\n    return", 1)})

    path = str(trap).encode()
    yield case("as it is", script(), "runs with every operator that torch has", "nothing proves", TRUST)
    yield case("under the name of a state dict", script(), "as above", "nothing proves", TRUST, "model.pt")
    yield case("a loop without end", with_code(b"while True:\n      pass"), "never answers", "nothing proves", TRUST)
    yield case(
        "reads a file", with_code(b'_ = torch.from_file("/etc/passwd", False, 3)'), "reads it", "reaches outside"
    )
    yield case("writes a file", with_code(b'_ = torch.save(x, "' + path + b'")'), "writes it", "reaches outside")
    yield case(
        "writes into the log", with_code(b'print("{}")'), "forges metrics, which are log lines", "reaches outside"
    )
    yield case(
        "reads a file, its name spread",
        with_code(b'_ = ops.aten.from_file ("x", True, 3)'),
        "reads it",
        "reaches outside",
    )
    yield case("an operator of a library", with_code(b"_ = ops.mylib.run(input)"), "runs the library", "of a library")
    yield case("a class of a library", with_code(b"_ = torch.classes.x.Y()"), "runs the library", "reaches outside")
    yield case("an import", with_code(b"import os"), "is Python", "imports something")
    for name in ("data.pkl", "constants.pkl"):
        yield case(
            f"a command in {name}",
            zipped(good | {folder + name: pickle.dumps(Runs(os.system, payload(trap)), 2)}),
            "runs when somebody unpickles it in Python",
            "would import 'posix system'",
        )
    yield case(
        "byte code for phones",
        zipped(good | {folder + "bytecode.pkl": b"\x80\x02)."}),
        "another interpreter runs that instead",
        "is not one that torch.jit.save writes",
    )
    yield case(
        "without a signature",
        zipped({name: data for name, data in good.items() if "/extra/" not in name}),
        "takes anything",
        "has no extra/perch.signature",
    )
    yield case(
        "a signature of a thousand dimensions",
        zipped(
            good
            | {
                folder + "extra/perch.signature": json.dumps(
                    {
                        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1] * 1000}],
                        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
                    }
                ).encode()
            }
        ),
        "fills memory when requests are checked",
        "a tensor without a shape",
    )
