"""An ONNX graph as a PyTorch module, for times beside Kiln's: the operators of the benchmark graphs, static shapes. Needs torch and onnx."""
import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper

DTYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}


def ints(x):
    return [int(v) for v in x.tolist()]


def conv(x, w, b, a):
    pads, rank = a.get("pads", [0] * 2 * (x.dim() - 2)), x.dim() - 2
    if pads[:rank] != pads[rank:]:
        x = F.pad(x, [p for d in reversed(range(rank)) for p in (pads[d], pads[d + rank])])
        pads = [0] * 2 * rank
    return torch.convolution(x, w, b, a.get("strides", [1] * rank), pads[:rank], a.get("dilations", [1] * rank), False, [0] * rank, a.get("group", 1))


def max_pool(x, a):
    pads, rank = a.get("pads", [0] * 4), len(a["kernel_shape"])
    x = F.pad(x, [p for d in reversed(range(rank)) for p in (pads[d], pads[d + rank])], value=-torch.inf)
    return F.max_pool2d(x, a["kernel_shape"], a.get("strides", [1] * rank))


def average_pool(x, a):
    return F.avg_pool2d(x, a["kernel_shape"], a.get("strides"), a.get("pads", [0, 0])[:2])


def sliced(x, starts, ends, axes=None, steps=None):
    axes = ints(axes) if axes is not None else list(range(starts.numel()))
    index = [slice(None)] * x.dim()
    for k, axis in enumerate(axes):
        index[axis] = slice(int(starts[k]), min(int(ends[k]), 2**62), int(steps[k]) if steps is not None else 1)
    return x[tuple(index)]


def padded(x, pads, value=None, mode="constant"):
    pads, rank = ints(pads), x.dim()
    flat = [p for d in reversed(range(rank)) for p in (pads[d], pads[d + rank])]
    while mode != "constant" and len(flat) > 4 and flat[-1] == 0 and flat[-2] == 0:
        flat = flat[:-2]
    return F.pad(x, flat, mode={"constant": "constant", "reflect": "reflect", "edge": "replicate"}[mode],
                 **({"value": float(value) if value is not None else 0.0} if mode == "constant" else {}))


def resized(x, scales, sizes, a):
    size = ints(sizes)[2:] if sizes is not None and sizes.numel() else [int(s * float(k)) for s, k in zip(x.shape[2:], scales[2:])]
    return F.interpolate(x, size=size, mode="nearest" if a.get("mode", "nearest") == "nearest" else "bilinear")


class Graph(torch.nn.Module):
    def __init__(self, path):
        super().__init__()
        graph = onnx.load(path).graph
        self.nodes, self.constants, self.inputs = [], {}, []
        for tensor in graph.initializer:
            self.keep(tensor.name, numpy_helper.to_array(tensor))
        for node in graph.node:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            attributes = {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()}
            if node.op_type == "Constant":
                self.keep(node.output[0], numpy_helper.to_array(attributes["value"]))
            else:
                self.nodes.append((node.op_type, list(node.input), list(node.output), attributes))
        self.inputs = [v.name for v in graph.input if v.name not in self.constants]
        self.outputs = [v.name for v in graph.output]
        self.lstms = torch.nn.ModuleDict()
        for op, names, outs, a in self.nodes:
            if op == "LSTM":
                self.lstms[outs[0].replace(".", "_")] = self.lstm(names, a)

    # Integers are shapes and axes, which have to be known while the module is compiled; weights are buffers.
    def keep(self, name, array):
        tensor = torch.from_numpy(np.array(array))
        if tensor.dtype == torch.int64 and tensor.numel() <= 64:
            self.constants[name] = tensor
        else:
            self.register_buffer(f"c{len(self.constants)}", tensor)
            self.constants[name] = f"c{len(self.constants)}"

    def constant(self, name):
        found = self.constants[name]
        return getattr(self, found) if isinstance(found, str) else found

    def lstm(self, names, a):
        w, r = self.constant(names[1]), self.constant(names[2])
        b = self.constant(names[3]) if len(names) > 3 and names[3] else torch.zeros(w.shape[0], 2 * w.shape[1])
        hidden = a["hidden_size"]
        out = torch.nn.LSTM(w.shape[2], hidden, bidirectional=w.shape[0] == 2)
        order = torch.cat([torch.arange(k * hidden, (k + 1) * hidden) for k in (0, 2, 3, 1)])  # iofc to ifco
        with torch.no_grad():
            for d in range(w.shape[0]):
                end = "_l0" + ("_reverse" if d else "")
                for stem, value in (("weight_ih", w[d]), ("weight_hh", r[d]), ("bias_ih", b[d, :4 * hidden]), ("bias_hh", b[d, 4 * hidden:])):
                    getattr(out, stem + end).copy_(value[order])
        return out.requires_grad_(False)

    def forward(self, *inputs):
        values = dict(zip(self.inputs, inputs))

        def value(name):
            if not name:
                return None
            return values[name] if name in values else self.constant(name)

        for op, names, outs, a in self.nodes:
            x = [value(n) for n in names]
            made = self.step(op, x, outs, a)
            for name, result in zip(outs, made if isinstance(made, (list, tuple)) else [made]):
                values[name] = result
        return tuple(values[name] for name in self.outputs)

    def step(self, op, x, outs, a):
        plain = {"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Pow": torch.pow, "MatMul": torch.matmul, "Erf": torch.erf, "Relu": torch.relu,
                 "Tanh": torch.tanh, "Sigmoid": torch.sigmoid, "Sqrt": torch.sqrt, "IsNaN": torch.isnan, "And": torch.logical_and, "Where": torch.where,
                 "Exp": torch.exp, "Neg": torch.neg, "Equal": torch.eq, "Less": torch.lt, "Greater": torch.gt, "Identity": lambda v: v}
        if op in plain:
            return plain[op](*x)
        if op == "Div":
            return torch.div(*x) if x[0].is_floating_point() else torch.div(*x, rounding_mode="trunc")
        if op == "Cast":
            return x[0].to(DTYPES[a["to"]])
        if op == "Clip":
            return torch.clamp(x[0], *(None if v is None else float(v) for v in (x + [None, None])[1:3]))
        if op == "Concat":
            return torch.cat(x, a["axis"])
        if op == "Conv":
            return conv(x[0], x[1], x[2] if len(x) > 2 else None, a)
        if op == "MaxPool":
            return max_pool(x[0], a)
        if op == "AveragePool":
            return average_pool(x[0], a)
        if op == "GlobalAveragePool":
            return x[0].mean(list(range(2, x[0].dim())), keepdim=True)
        if op == "Gather":
            axis = a.get("axis", 0) % x[0].dim()
            index = x[1].to(x[0].device)
            return torch.index_select(x[0], axis, index.flatten()).reshape(list(x[0].shape[:axis]) + list(index.shape) + list(x[0].shape[axis + 1:]))
        if op == "GatherElements":
            return torch.gather(x[0], a.get("axis", 0), x[1])
        if op == "GatherND":
            return x[0][tuple(x[1][..., k] for k in range(x[1].shape[-1]))]
        if op == "Gemm":
            p, q = (x[0].T if a.get("transA") else x[0]), (x[1].T if a.get("transB") else x[1])
            return torch.addmm(x[2], p, q) if len(x) > 2 else p @ q
        if op == "InstanceNormalization":
            return F.instance_norm(x[0], weight=x[1], bias=x[2], eps=a.get("epsilon", 1e-5))
        if op == "BatchNormalization":
            return F.batch_norm(x[0], x[3], x[4], x[1], x[2], False, 0.0, a.get("epsilon", 1e-5))
        if op == "LayerNormalization":
            shape = x[0].shape[a.get("axis", -1) % x[0].dim():]
            return F.layer_norm(x[0], shape, x[1], x[2] if len(x) > 2 else None, a.get("epsilon", 1e-5))
        if op == "Gelu":
            return F.gelu(x[0], approximate=a.get("approximate", "none"))
        if op in ("Softmax", "LogSoftmax"):
            return (torch.softmax if op == "Softmax" else torch.log_softmax)(x[0], a.get("axis", -1))
        if op == "LSTM":
            y, (h, c) = self.lstms[outs[0].replace(".", "_")](x[0], None if len(x) < 7 or x[5] is None else (x[5], x[6]))
            return y.reshape(y.shape[0], y.shape[1], h.shape[0], -1).transpose(1, 2), h, c
        if op == "Pad":
            return padded(x[0], x[1], x[2] if len(x) > 2 else None, a.get("mode", "constant"))
        if op in ("ReduceMean", "ReduceSum", "ReduceMax"):
            axes = ints(x[1]) if len(x) > 1 and x[1] is not None else a.get("axes", list(range(x[0].dim())))
            keep = bool(a.get("keepdims", 1))
            return {"ReduceMean": torch.mean, "ReduceSum": torch.sum, "ReduceMax": torch.amax}[op](x[0], axes, keepdim=keep)
        if op == "Reshape":
            return x[0].reshape([x[0].shape[k] if d == 0 else d for k, d in enumerate(ints(x[1]))])
        if op == "Flatten":
            return x[0].flatten(a.get("axis", 1)) if a.get("axis", 1) else x[0].reshape(1, -1)
        if op == "Resize":
            return resized(x[0], x[2] if len(x) > 2 else None, x[3] if len(x) > 3 else None, a)
        if op == "Slice":
            return sliced(*x)
        if op == "Split":
            axis = a.get("axis", 0)
            sizes = ints(x[1]) if len(x) > 1 and x[1] is not None else x[0].shape[axis] // len(outs)
            return torch.split(x[0], sizes, axis)
        if op == "Squeeze":
            return x[0].squeeze(tuple(ints(x[1]))) if len(x) > 1 else x[0].squeeze()
        if op == "Unsqueeze":
            for axis in sorted(ints(x[1])):
                x[0] = x[0].unsqueeze(axis)
            return x[0]
        if op == "Transpose":
            return x[0].permute(a["perm"])
        if op == "Expand":
            return x[0].expand(torch.broadcast_shapes(x[0].shape, ints(x[1])))
        raise NotImplementedError(op)


if __name__ == "__main__":  # torch_graph.py MODEL.onnx: compiles it as peers.py does, for the compiler's cache
    import sys

    from values import read_values, stored_files

    graph = Graph(sys.argv[1]).cuda().eval()
    given = read_values(stored_files(sys.argv[1])[0])[0]
    call = torch.compile(graph, mode="reduce-overhead")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    with torch.no_grad():
        call(*(torch.from_numpy(given[name]).cuda() for name in graph.inputs))
