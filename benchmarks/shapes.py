"""Made-up graphs: the shapes that people's workflows have, with names, code and options.

What the code and environment of a task look like in a journal is written out here as text, since
the real thing depends on the versions of Python and cloudpickle.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

import msgpack

from milepost.replay.fragment import Fragment, Function, TaskOptions
from milepost.replay.payload import Payload, inline

VERBS = ("load", "clean", "score", "train", "merge", "fetch", "parse", "embed", "index", "report")
NOUNS = ("row", "page", "shard", "model", "file", "batch", "chunk", "user", "image", "table")
MODULES = ("__main__", "pipeline", "jobs.nightly", "app.tasks", "steps")

_CODE = (
    b"\x80\x05\x95%c\x01\x00\x00\x00\x00\x00\x00\x8c\x17cloudpickle.cloudpickle\x94\x8c\x0e"
    b"_make_function\x94\x93\x94(h\x00\x8c\r_builtin_type\x94\x93\x94\x8c\x08CodeType\x94\x85\x94R"
    b"\x94(K%cK\x00K\x00K%cK\x04K\x03C%c%s\x94NK\x01\x86\x94)\x8c\x01x\x94\x85\x94\x8c%c%s\x94\x8c"
    b"%c%s\x94\x8c%c%s\x94K%cC\n\x80\x00\xa0q\xa8\x11\xa1s\x80\x00\x94C\x00\x94))t\x94R\x94}\x94(\x8c"
    b"\x0b__package__\x94N\x8c\x08__name__\x94\x8c\x08__main__\x94\x8c\x08__file__\x94h\x0cuNNNt\x94R"
    b"\x94h\x00\x8c\x12_function_setstate\x94\x93\x94h\x19}\x94}\x94(h\x15\x8c%c%s\x94\x8c\x0c"
    b"__qualname__\x94\x8c%c%s\x94\x8c\x0f__annotations__\x94}\x94\x8c\x0e__kwdefaults__\x94N\x8c"
    b"\x0c__defaults__\x94N\x8c\n__module__\x94h\x16\x8c\x07__doc__\x94N\x8c\x0b__closure__\x94N"
    b"\x8c\x17_cloudpickle_submodules\x94]\x94\x8c\x0b__globals__\x94}\x94u\x86\x94\x86R0."
)
"""How cloudpickle stores a function, with room for its names and its code."""

_INSTRUCTIONS = (
    *(b"\x97\x00", b"|\x00d\x01z\x00\x00\x00", b"t\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
    *(b"|\x00\xa6\x01\x00\x00\xab\x01\x00\x00\x00\x00\x00\x00\x00\x00", b"|\x01z\x05\x00\x00"),
    *(b"d\x01\x19\x00\x00\x00\x00\x00\x00\x00\x00\x00", b"}\x01", b"S\x00"),
)


def make_function(rng: random.Random) -> Function:
    """Makes up a function."""
    name = f"{rng.choice(VERBS)}_{rng.choice(NOUNS)}"
    module = rng.choice(MODULES)
    file = f"/srv/{rng.choice(('ann', 'ray', 'app'))}/{module}.py".encode()
    text = name.encode()
    body = b"".join(rng.choices(_INSTRUCTIONS, k=rng.randrange(3, 9)))
    sized = (len(text), text)
    counts = (rng.randrange(256), rng.randrange(1, 4), rng.randrange(1, 4), len(body), body)
    code = _CODE % (*counts, len(file), file, *sized, *sized, rng.randrange(3, 99), *sized, *sized)
    digest = hashlib.sha256(code).digest()
    return Function(name=f"{module}.{name}", digest=digest, code=inline(1, code))


def make_options(rng: random.Random) -> TaskOptions:
    """Makes up options, mostly the usual ones."""
    usual: list[dict[str, int]] = [{}, {}, {"num_cpus": 1}, {"num_cpus": 1, "num_gpus": 1}]
    ray = rng.choice(usual)
    return TaskOptions(
        max_retries=rng.choice((3, 3, 3, 0, -1)),
        retry_errors=inline(0, msgpack.packb(rng.random() < 0.3)),
        ray=inline(0, msgpack.packb(ray)),
    )


def make_environment(rng: random.Random) -> Payload:
    """Makes up what the engine notes about where a workflow was submitted."""
    folder = f"/srv/{rng.choice(('ann', 'ray', 'app'))}/{rng.choice(NOUNS)}s"
    environment = {
        "import_paths": [folder],
        "runtime_env": {},
        "submission": f"{rng.getrandbits(128):032x}",
    }
    return inline(0, msgpack.packb(environment))


def make_graph(rng: random.Random, inputs: Sequence[Sequence[int]], kinds: int = 1) -> Fragment:
    """Makes a fragment of a shape: for each node the nodes it takes, the last one the root."""
    functions = [make_function(rng) for _ in range(kinds)]
    distinct = {function.digest: function for function in functions}
    functions = list(distinct.values())
    names = list(dict.fromkeys(function.name for function in functions))
    arities = sorted({len(sources) for sources in inputs})
    templates = [
        msgpack.packb([[msgpack.ExtType(1, msgpack.packb(at)) for at in range(arity)], {}])
        for arity in arities
    ]
    chosen = [rng.randrange(len(functions)) for _ in inputs]
    return Fragment(
        names=tuple(names),
        functions=tuple(functions),
        options=(make_options(rng),),
        templates=tuple(templates),
        node_names=tuple(names.index(functions[at].name) for at in chosen),
        node_functions=tuple(chosen),
        node_options=(0,) * len(inputs),
        node_templates=tuple(arities.index(len(sources)) for sources in inputs),
        input_counts=tuple(len(sources) for sources in inputs),
        inputs=tuple(source for sources in inputs for source in sources),
    )


def single(rng: random.Random) -> Fragment:
    """One task."""
    return make_graph(rng, [()])


def chain(rng: random.Random, length: int) -> Fragment:
    """Each task takes the one before."""
    return make_graph(rng, [(), *((node,) for node in range(length - 1))], kinds=3)


def fan(rng: random.Random, width: int) -> Fragment:
    """Independent tasks, and one that takes them all."""
    return make_graph(rng, [*[()] * width, tuple(range(width))], kinds=2)


def layers(rng: random.Random, width: int, depth: int) -> Fragment:
    """Layers of tasks; each takes two of the layer before."""
    inputs: list[tuple[int, ...]] = [()] * width
    for layer in range(1, depth):
        first = (layer - 1) * width
        inputs += [(first + at, first + (at + 1) % width) for at in range(width)]
    last = (depth - 1) * width
    return make_graph(rng, [*inputs, tuple(range(last, last + width))], kinds=4)
