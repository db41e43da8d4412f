"""One peer in a process of its own, as compare.py starts it: peer.py ort|openvino MODEL.onnx THREADS

Says how it started, then runs for as many seconds as each line of standard input asks for: the same words as
`kiln bench --slices`. Engines in one process would share threads and disturb each other.
"""
import json
import sys
import time

import numpy as np


def onnx_runtime(path, inputs, threads):
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    begin = started()
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return begin, lambda: session.run(None, inputs)


def open_vino(path, inputs, threads):
    import openvino

    begin = started()
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({name: list(value.shape) for name, value in inputs.items()})
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    for name, value in inputs.items():
        request.set_tensor(name, openvino.Tensor(value))
    return begin, request.infer


def started():
    """Once the library is imported: the time, and the memory that is not the model's."""
    with open("/proc/self/status") as status:
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024
    return time.perf_counter(), resident


def main(kind, path, threads):
    data = np.load(path[:-5] + ".npz")
    inputs = {key[3:]: data[key] for key in data.files if key.startswith("in:")}
    (start, base), call = {"ort": onnx_runtime, "openvino": open_vino}[kind](path, inputs, int(threads))
    loaded = time.perf_counter()
    call()
    first = time.perf_counter()
    print(json.dumps({"load_ms": (loaded - start) * 1e3, "first_ms": (first - loaded) * 1e3, "base_mib": base}), flush=True)
    for line in sys.stdin:
        times, end = [], time.perf_counter() + float(line)
        while not times or time.perf_counter() < end:
            begin = time.perf_counter()
            call()
            times.append((time.perf_counter() - begin) * 1e3)
        print(json.dumps({"times_ms": times}), flush=True)


main(*sys.argv[1:])
