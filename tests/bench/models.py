#!/usr/bin/env python3
"""The benchmark's models, made from scratch: eleven common networks with seeded random weights, and single layers.

    python3 models.py FOLDER [NAME...]

Writes FOLDER/NAME.onnx and FOLDER/NAME.npz, which holds `in:NAME` for each input and `out:NAME` for each output, as
ONNX Runtime computes it. `resnet50@32` is resnet50 for batches of 32 (`resnet50_b32.onnx`, with the weights of resnet50), and so for each of
the eleven. Single layers, for profiles, are named by their sizes: `matmul_128x3072x768` (rows, columns, depth),
`conv_64x56x3x1` (channels, size of the image, kernel, stride; four layers one after the other), `attention_12x128x64` (heads,
length, width of a head), `nbits_1x4096x4096x4x1` (rows, columns, depth, bits of a weight, ONNX Runtime's accuracy level: 1 computes in
floats, 4 on 8-bit codes of the inputs; blocks of 32). Times depend on shapes and not on what the weights have learned, so nothing is downloaded.
Needs numpy, onnx and onnxruntime.
"""
import os
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Net:
    """A graph that grows node by node; every method returns the name of the value it made."""

    batch = 1

    def __init__(self, name, **inputs):
        self.name, self.rng = name + (f"_b{self.batch}" if self.batch > 1 else ""), np.random.default_rng(sum(name.encode()))
        self.nodes, self.weights, self.count = [], [], 0
        self.inputs = [helper.make_tensor_value_info(k, kind, dims) for k, (kind, dims) in inputs.items()]

    def fresh(self, stem):
        self.count += 1
        return f"{stem}_{self.count}"

    def add(self, op, *args, outputs=1, **attributes):
        names = [self.fresh(op.lower()) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, list(args), names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, array, stem="c"):
        name = self.fresh(stem)
        self.weights.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def ints(self, *values):
        return self.constant(np.array(values, np.int64))

    def scalar(self, value):
        return self.constant(np.array(value, np.float32))

    def random(self, *dims, scale=0.02):
        return self.constant((self.rng.standard_normal(dims) * scale).astype(np.float32), "w")

    def vector(self, n, around=0.0):
        return self.constant((around + 0.02 * self.rng.standard_normal(n)).astype(np.float32), "b")

    # -- layers

    def conv(self, x, cin, cout, kernel, stride=1, groups=1, pad=None, gain=2.0):
        pad = kernel // 2 if pad is None else pad
        w = self.random(cout, cin // groups, kernel, kernel, scale=(gain / (cin // groups * kernel * kernel)) ** 0.5)
        return self.add("Conv", x, w, self.vector(cout), kernel_shape=[kernel] * 2, strides=[stride] * 2, group=groups, pads=[pad] * 4)

    def relu(self, x):
        return self.add("Relu", x)

    def relu6(self, x):
        return self.add("Clip", x, self.scalar(0), self.scalar(6))

    def dense(self, x, cin, cout):
        return self.add("Gemm", x, self.random(cout, cin, scale=cin**-0.5), self.vector(cout), transB=1)

    def linear(self, x, cin, cout):  # over the last axis of a tensor of any rank
        return self.add("Add", self.add("MatMul", x, self.random(cin, cout, scale=cin**-0.5)), self.vector(cout))

    def norm(self, x, width):
        return self.add("LayerNormalization", x, self.vector(width, 1), self.vector(width), axis=-1, epsilon=1e-5)

    def gelu(self, x):
        erf = self.add("Erf", self.add("Div", x, self.scalar(2**0.5)))
        return self.add("Mul", self.add("Mul", x, self.add("Add", erf, self.scalar(1))), self.scalar(0.5))

    def gelu_tanh(self, x):
        inner = self.add("Add", x, self.add("Mul", self.add("Pow", x, self.scalar(3)), self.scalar(0.044715)))
        bent = self.add("Tanh", self.add("Mul", inner, self.scalar((2 / np.pi) ** 0.5)))
        return self.add("Mul", self.add("Mul", x, self.scalar(0.5)), self.add("Add", bent, self.scalar(1)))

    def reshape(self, x, *dims):
        return self.add("Reshape", x, self.ints(*dims))

    def mean_pool(self, x, channels):
        return self.reshape(self.add("ReduceMean", x, self.ints(2, 3), keepdims=0), self.batch, channels)

    def attention(self, x, length, width, heads, mask=None):
        size = width // heads
        packed = self.reshape(self.linear(x, width, 3 * width), self.batch, length, 3, heads, size)
        packed = self.add("Transpose", packed, perm=[2, 0, 3, 1, 4])
        q, k, v = (self.add("Gather", packed, self.constant(np.array(i, np.int64)), axis=0) for i in range(3))
        scores = self.add("MatMul", q, self.add("Transpose", k, perm=[0, 1, 3, 2]))
        scores = self.add("Mul", scores, self.scalar(size**-0.5))
        if mask is not None:
            scores = self.add("Add", scores, mask)
        mixed = self.add("MatMul", self.add("Softmax", scores, axis=-1), v)
        mixed = self.reshape(self.add("Transpose", mixed, perm=[0, 2, 1, 3]), self.batch, length, width)
        return self.linear(mixed, width, width)

    def save(self, folder, samples, *outputs):
        infos = [helper.make_empty_tensor_value_info(o) for o in outputs]
        graph = helper.make_graph(self.nodes, self.name, self.inputs, infos, self.weights)
        domains = [("", 18)] + [("com.microsoft", 1)] * any(node.domain for node in self.nodes)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid(*d) for d in domains], ir_version=9, producer_name="kiln-bench")
        model = onnx.shape_inference.infer_shapes(model)
        known = {v.name: v for v in model.graph.value_info}
        for i, o in enumerate(outputs):
            if o in known:
                model.graph.output[i].CopyFrom(known[o])
        path = os.path.join(folder, self.name + ".onnx")
        onnx.save(model, path)
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        answers = session.run(list(outputs), samples)
        assert all(np.isfinite(a).all() for a in answers), self.name
        stored = {f"in:{k}": v for k, v in samples.items()} | {f"out:{o}": a for o, a in zip(outputs, answers)}
        np.savez(path[:-5] + ".npz", **stored)
        print(f"{self.name:16} {os.path.getsize(path) / 2**20:7.1f} MiB {len(self.nodes):5} nodes", flush=True)


F32, I64 = TensorProto.FLOAT, TensorProto.INT64


def sample(seed, *dims):
    return np.random.default_rng(seed).standard_normal(dims).astype(np.float32)


def image_net(name, size=224):
    return Net(name, x=(F32, [Net.batch, 3, size, size])), {"x": sample(1, Net.batch, 3, size, size)}


def mlp(name, batch):
    batch = Net.batch if Net.batch > 1 else batch
    n = Net(name, x=(F32, [batch, 784]))
    h = n.relu(n.dense("x", 784, 512))
    h = n.relu(n.dense(h, 512, 256))
    return n, {"x": sample(2, batch, 784)}, n.add("Softmax", n.dense(h, 256, 10), axis=-1)


def mnist_cnn(name):
    n = Net(name, x=(F32, [Net.batch, 1, 28, 28]))
    h = n.relu(n.conv("x", 1, 32, 3, pad=0))
    h = n.relu(n.conv(h, 32, 64, 3, pad=0))
    h = n.reshape(n.add("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2]), n.batch, 9216)
    h = n.relu(n.dense(h, 9216, 128))
    return n, {"x": sample(3, n.batch, 1, 28, 28)}, n.add("LogSoftmax", n.dense(h, 128, 10), axis=-1)


def resnet50(name):
    n, samples = image_net(name)
    h = n.relu(n.conv("x", 3, 64, 7, 2))
    h = n.add("MaxPool", h, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    width = 64
    for stage, blocks in enumerate([3, 4, 6, 3]):
        inner = 64 << stage
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 0 else 1
            side = n.conv(h, width, inner * 4, 1, stride, gain=1) if block == 0 else h
            h = n.relu(n.conv(h, width, inner, 1))
            h = n.relu(n.conv(h, inner, inner, 3, stride))
            h = n.relu(n.add("Add", n.conv(h, inner, inner * 4, 1, gain=0.2), side))
            width = inner * 4
    return n, samples, n.dense(n.mean_pool(h, width), width, 1000)


def mobilenet_v2(name):
    n, samples = image_net(name)
    h, width = n.relu6(n.conv("x", 3, 32, 3, 2)), 32
    for expand, out, blocks, first in [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]:
        for block in range(blocks):
            stride, inner, before = first if block == 0 else 1, width * expand, h
            if expand > 1:
                h = n.relu6(n.conv(h, width, inner, 1))
            h = n.relu6(n.conv(h, inner, inner, 3, stride, groups=inner))
            h = n.conv(h, inner, out, 1, gain=1)
            if stride == 1 and width == out:
                h = n.add("Add", h, before)
            width = out
    h = n.relu6(n.conv(h, width, 1280, 1))
    return n, samples, n.dense(n.mean_pool(h, 1280), 1280, 1000)


def squeezenet(name):
    n, samples = image_net(name)
    pool = lambda x: n.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    h, width = pool(n.relu(n.conv("x", 3, 64, 3, 2, pad=0))), 64
    for i, (squeeze, expand) in enumerate([(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]):
        s = n.relu(n.conv(h, width, squeeze, 1))
        h = n.add("Concat", n.relu(n.conv(s, squeeze, expand, 1)), n.relu(n.conv(s, squeeze, expand, 3)), axis=1)
        width = 2 * expand
        if i in (1, 3):
            h = pool(h)
    return n, samples, n.mean_pool(n.relu(n.conv(h, 512, 1000, 1)), 1000)


def style(name):
    n, samples = image_net(name)

    def padded(x, cin, cout, kernel, stride=1):
        p = kernel // 2
        return n.conv(n.add("Pad", x, n.ints(0, 0, p, p, 0, 0, p, p), mode="reflect"), cin, cout, kernel, stride, pad=0)

    def normed(x, c):
        return n.add("InstanceNormalization", x, n.vector(c, 1), n.vector(c), epsilon=1e-5)

    def up(x):
        scales = n.constant(np.array([1, 1, 2, 2], np.float32))
        return n.add("Resize", x, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")

    h = n.relu(normed(padded("x", 3, 32, 9), 32))
    h = n.relu(normed(padded(h, 32, 64, 3, 2), 64))
    h = n.relu(normed(padded(h, 64, 128, 3, 2), 128))
    for _ in range(5):
        inner = n.relu(normed(padded(h, 128, 128, 3), 128))
        h = n.add("Add", normed(padded(inner, 128, 128, 3), 128), h)
    h = n.relu(normed(padded(up(h), 128, 64, 3), 64))
    h = n.relu(normed(padded(up(h), 64, 32, 3), 32))
    return n, samples, padded(h, 32, 3, 9)


def vit_tiny(name, width=192, layers=12, heads=3):
    n, samples = image_net(name)
    w = n.random(width, 3, 16, 16)
    h = n.reshape(n.add("Conv", "x", w, n.vector(width), kernel_shape=[16, 16], strides=[16, 16]), n.batch, width, 196)
    first = n.random(1, 1, width)
    if n.batch > 1:
        first = n.add("Expand", first, n.ints(n.batch, 1, width))
    h = n.add("Concat", first, n.add("Transpose", h, perm=[0, 2, 1]), axis=1)
    h = n.add("Add", h, n.random(1, 197, width))
    for _ in range(layers):
        h = n.add("Add", h, n.attention(n.norm(h, width), 197, width, heads))
        h = n.add("Add", h, n.linear(n.gelu(n.linear(n.norm(h, width), width, 4 * width)), 4 * width, width))
    h = n.add("Gather", n.norm(h, width), n.constant(np.array(0, np.int64)), axis=1)
    return n, samples, n.dense(h, width, 1000)


def tokens(length, vocabulary):
    return np.random.default_rng(5).integers(0, vocabulary, (Net.batch, length)).astype(np.int64)


def minilm(name, length=128, width=384, layers=6, heads=12, vocabulary=30522):
    n = Net(name, ids=(I64, [Net.batch, length]), mask=(I64, [Net.batch, length]))
    h = n.add("Add", n.add("Gather", n.random(vocabulary, width), "ids", axis=0), n.random(1, length, width))
    h = n.norm(n.add("Add", h, n.random(1, 1, width)), width)
    hidden = n.add("Sub", n.scalar(1), n.add("Cast", "mask", to=F32))
    mask = n.reshape(n.add("Mul", hidden, n.scalar(-1e9)), n.batch, 1, 1, length)
    for _ in range(layers):
        h = n.norm(n.add("Add", h, n.attention(h, length, width, heads, mask)), width)
        h = n.norm(n.add("Add", h, n.linear(n.gelu(n.linear(h, width, 4 * width)), 4 * width, width)), width)
    return n, {"ids": tokens(length, vocabulary), "mask": np.ones((n.batch, length), np.int64)}, h


def gpt2(name, length=64, width=768, layers=12, heads=12, vocabulary=50257):
    n = Net(name, ids=(I64, [Net.batch, length]))
    table = n.random(vocabulary, width)
    h = n.add("Add", n.add("Gather", table, "ids", axis=0), n.random(1, length, width))
    causal = n.constant(np.triu(np.full((1, 1, length, length), -1e9, np.float32), 1))
    for _ in range(layers):
        h = n.add("Add", h, n.attention(n.norm(h, width), length, width, heads, causal))
        h = n.add("Add", h, n.linear(n.gelu_tanh(n.linear(n.norm(h, width), width, 4 * width)), 4 * width, width))
    return n, {"ids": tokens(length, vocabulary)}, n.add("MatMul", n.norm(h, width), n.add("Transpose", table, perm=[1, 0]))


def lstm(name, steps=100, width=128, hidden=256):
    n = Net(name, x=(F32, [Net.batch, steps, width]))
    h = n.add("Transpose", "x", perm=[1, 0, 2])
    for cin in (width, hidden):
        y = n.add("LSTM", h, n.random(1, 4 * hidden, cin, scale=cin**-0.5), n.random(1, 4 * hidden, hidden, scale=hidden**-0.5),
                  n.random(1, 8 * hidden), outputs=3, hidden_size=hidden)[0]
        h = n.add("Squeeze", y, n.ints(1))
    return n, {"x": sample(4, n.batch, steps, width)}, n.linear(n.add("Transpose", h, perm=[1, 0, 2]), hidden, 10)


def matmul(name, rows, columns, depth):
    n = Net(name, x=(F32, [rows, depth]))
    return n, {"x": sample(6, rows, depth)}, n.linear("x", depth, columns)


def conv(name, channels, size, kernel, stride):
    n, h = Net(name, x=(F32, [1, channels, size, size])), "x"
    for _ in range(4 if stride == 1 else 1):
        h = n.relu(n.conv(h, channels, channels, kernel, stride))
    return n, {"x": sample(7, 1, channels, size, size)}, h


def attention(name, heads, length, size):
    n = Net(name, x=(F32, [1, length, heads * size]))
    return n, {"x": sample(8, 1, length, heads * size)}, n.attention("x", length, heads * size, heads)


def nbits(name, rows, columns, depth, bits, level):
    n = Net(name, x=(F32, [rows, depth]))
    codes = n.constant(n.rng.integers(0, 256, (columns, depth // 32, 4 * bits), dtype=np.uint8), "w")
    scales = n.constant(n.rng.uniform(0.001, 0.01, columns * depth // 32).astype(np.float32), "s")
    y = n.add("MatMulNBits", "x", codes, scales, domain="com.microsoft", K=depth, N=columns, bits=bits, block_size=32, accuracy_level=level)
    return n, {"x": sample(9, rows, depth)}, y


LAYERS = {"matmul": (matmul, 3), "nbits": (nbits, 5), "conv": (conv, 4), "attention": (attention, 3)}


def make(name):
    name, _, batch = name.partition("@")
    if batch and not (batch.isdigit() and int(batch) > 0 and name in MODELS):
        sys.exit(f"{name}@{batch}: a batch is a number, of one of {', '.join(MODELS)}")
    Net.batch = int(batch or 1)
    if name in MODELS:
        return MODELS[name](name)
    kind, _, sizes = name.partition("_")
    function, count = LAYERS.get(kind, (None, 0))
    numbers = [int(s) for s in sizes.split("x") if s.isdigit() and int(s) > 0]
    if function is None or len(numbers) != count or "x".join(map(str, numbers)) != sizes:
        sys.exit(f"no such model: {name}; there are {', '.join(MODELS)}, and layers with their sizes: matmul_RxCxD, conv_CxHxKxS, attention_HxLxD, nbits_RxCxDxBxA")
    return function(name, *numbers)


MODELS = {
    "mlp_b1": lambda name: mlp(name, 1),
    "mlp_b64": lambda name: mlp(name, 64),
    "mnist_cnn": mnist_cnn,
    "lstm": lstm,
    "mobilenet_v2": mobilenet_v2,
    "squeezenet1_1": squeezenet,
    "vit_tiny": vit_tiny,
    "minilm_s128": minilm,
    "resnet50": resnet50,
    "style_224": style,
    "gpt2_s64": gpt2,
}


def main(arguments):
    if not arguments or any(a.startswith("-") for a in arguments):
        sys.exit(__doc__)
    folder, names = arguments[0], arguments[1:] or list(MODELS)
    os.makedirs(folder, exist_ok=True)
    for name in names:
        net, samples, output = make(name)
        net.save(folder, samples, output)


if __name__ == "__main__":
    main(sys.argv[1:])
