"""peers.py KILN_RUN DEVICE FOLDER SECONDS: milliseconds a run of what prepare has compiled, and beside them those of cuBLAS (through PyTorch),
PyTorch eager and compiled, and ONNX Runtime, as far as they are there and the time lasts. Runs of graphs include the copies of inputs and results.
peers.py warm FOLDER: fills the cache of PyTorch's compiler for them, several at a time."""
import glob
import importlib.util
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from train_cases import first_values, input_files, inputs_of
from values import input_flags, read_values, stored_files


if sys.argv[1] == "warm":
    if importlib.util.find_spec("torch") and importlib.util.find_spec("onnx"):
        models = sorted(glob.glob(f"{sys.argv[2]}/bench/*.onnx"), key=os.path.getsize)
        here, running = os.path.dirname(os.path.abspath(__file__)), []
        for model in models:
            while len([p for p in running if p.poll() is None]) >= max(1, (os.cpu_count() or 2) // 2):
                time.sleep(0.2)
            running.append(subprocess.Popen([sys.executable, f"{here}/torch_graph.py", model]))
        for process in running:
            process.wait()
    sys.exit()

kiln_run, device, folder, seconds = sys.argv[1:5]
deadline = time.monotonic() + float(seconds)
has = {name: importlib.util.find_spec(name) is not None for name in ("torch", "onnx", "onnxruntime")}
if has["torch"]:
    import torch

    has["torch"] = torch.cuda.is_available()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
if has["onnxruntime"]:
    import onnxruntime

    has["onnxruntime"] = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def kiln_ms(package, flags, repeat=100):
    done = subprocess.run([kiln_run, package, "--device", device, "--repeat", str(repeat), *flags], capture_output=True, text=True)
    found = re.search(r"([0-9.]+) ms median, ([0-9.]+) fastest", done.stderr)
    if not found:
        print(f"{os.path.basename(package)}: {done.stderr.strip()[-300:]}")
    return float(found.group(1)) if found else None


def torch_ms(step, budget=1.0):
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    times, end = [], time.monotonic() + budget
    while len(times) < 10 or time.monotonic() < end:
        begin = time.perf_counter()
        step()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times)


def text(ms):
    return f"{ms:9.4f}" if isinstance(ms, float) else f"{ms or '-':>9}"


def attempt(measure, most=30):
    """A time, or why there is none."""
    left = deadline - time.monotonic()
    if left < 1:
        return "no time"

    def stop(*_):
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, min(left, most))
    try:
        return measure()
    except TimeoutError:
        return "no time"
    except Exception as error:
        print(f"  {type(error).__name__}: {str(error)[:200]}")
        return "failed"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def products():
    """One product is what nine take longer than one, by eight: copies and launches fall out."""
    for path in sorted(glob.glob(f"{folder}/products/*_9.kiln")):
        name, n = re.match(r"product_([\w-]+)_(\d+)_9", os.path.basename(path)).groups()
        dtype = "bf16" if name.startswith("bf16") else "f32"
        size = int(n)
        flags = ["--input", f"a={n}x{n}x{dtype}=0.01", "--input", f"b={n}x{n}x{dtype}=0.01"]
        nine, one = (kiln_ms(path.replace("_9.kiln", f"_{k}.kiln"), flags, 20) for k in (9, 1))
        ours = (nine - one) / 8 if nine and one else None
        line = f"product {name} {n:>5}: kiln {text(ours)} ms"
        if ours and ours > 0:
            line += f", {2 * size**3 / ours / 1e9:8.2f} TFLOP/s"
        if has["torch"]:
            kind = torch.float32 if dtype == "f32" else torch.bfloat16
            torch.backends.cuda.matmul.allow_tf32 = name.startswith("tf32")
            a, b = (torch.full((size, size), 0.01, device="cuda", dtype=kind) for _ in "ab")

            def eight():
                for _ in range(8):
                    torch.mm(a, b)

            theirs = torch_ms(eight) / 8
            torch.backends.cuda.matmul.allow_tf32 = False
            line += f"   cuBLAS {text(theirs)} ms" + (f": {100 * theirs / ours:.0f} % of it" if ours and ours > 0 else "")
        print(line, flush=True)


def launches():
    times = {k: kiln_ms(f"{folder}/products/launches_{k}.kiln", ["--input", "x=1x64xf32=0.1"], 300) for k in (100, 1)}
    if all(times.values()):
        print(f"launch cost: {(times[100] - times[1]) / 99 * 1e3:.2f} us a kernel in a graph of 100", flush=True)


def graph_peers(model, values):
    """Times of the peers for one ONNX file."""
    found = {}
    inputs, _ = read_values(values)
    if has["onnxruntime"]:
        def run_onnxruntime():
            session = onnxruntime.InferenceSession(model, providers=["CUDAExecutionProvider"])
            for _ in range(5):
                session.run(None, inputs)
            times = []
            for _ in range(30):
                begin = time.perf_counter()
                session.run(None, inputs)
                times.append((time.perf_counter() - begin) * 1e3)
            return statistics.median(times)

        found["ort"] = attempt(run_onnxruntime)
    if has["torch"] and has["onnx"]:
        from torch_graph import Graph

        def run_torch(mode):
            graph = Graph(model).cuda().eval()
            call = graph if mode == "eager" else torch.compile(graph, mode="reduce-overhead")
            given = [torch.from_numpy(inputs[name]).pin_memory() for name in graph.inputs]

            def step():
                with torch.no_grad():
                    return [y.cpu() for y in call(*(x.to("cuda", non_blocking=True) for x in given))]

            return torch_ms(step)

        for mode in ("eager", "compile"):
            found[mode] = attempt(lambda: run_torch(mode))
    return found


def batch_of(name):
    """32 of resnet50_b32, 1 of resnet50 (and of mlp_b64, which is a model of its own)."""
    return 32 if name.endswith("_b32") else 1


def graphs():
    print(f"{'graph':24} {'kiln':>9} {'eager':>9} {'compiled':>9} {'ORT':>9}   ms a run")
    ratios = {}
    # Small graphs first, at both batches: they take the least time.
    for package in sorted(glob.glob(f"{folder}/bench/*.kiln"), key=os.path.getsize):
        values = stored_files(package)
        if not values:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            ours = kiln_ms(package, input_flags(read_values(values[0])[0], temporary))
        model = package[:-5] + ".onnx"
        found = graph_peers(model, values[0]) if os.path.exists(model) else {}
        print(f"{os.path.basename(package)[:-5]:24} {text(ours)} {text(found.get('eager'))} {text(found.get('compile'))} {text(found.get('ort'))}", flush=True)
        for peer in ("eager", "compile", "ort"):
            if ours and isinstance(found.get(peer), float):
                ratios.setdefault((batch_of(os.path.basename(package)[:-5]), peer), []).append(found[peer] / ours)
    for (batch, peer), values in sorted(ratios.items()):
        print(f"geometric mean at batch {batch}: {statistics.geometric_mean(values):.2f} x {peer}, {len(values)} graphs", flush=True)


def training():
    print(f"{'training step':24} {'kiln':>9} {'eager':>9} {'compiled':>9}")
    for package in sorted(glob.glob(f"{folder}/train/*.kiln")):
        name = os.path.basename(package)[:-5]
        with tempfile.TemporaryDirectory() as temporary:
            flags = ["--entry", "train_step", "--load", first_values(kiln_run, package, temporary), *input_files(name, temporary)]
            ours = kiln_ms(package, flags, 50)
        found = {}
        if has["torch"]:
            def run_torch(mode):
                from train_peers import make

                net = make(name).cuda()
                optimizer = torch.optim.Adam(net.parameters(), 1e-3)
                call = net if mode == "eager" else torch.compile(net)
                x, y = (torch.from_numpy(v).pin_memory() for v in inputs_of(name))

                def step():
                    optimizer.zero_grad(set_to_none=True)
                    torch.nn.functional.cross_entropy(call(x.cuda(non_blocking=True)), y.cuda(non_blocking=True)).backward()
                    optimizer.step()

                return torch_ms(step)

            for mode in ("eager", "compile"):
                found[mode] = attempt(lambda: run_torch(mode))
        print(f"{name:24} {text(ours)} {text(found.get('eager'))} {text(found.get('compile'))}", flush=True)


for name, there in has.items():
    if not there:
        print(f"not here: {name}" + (" with CUDA" if name != "onnx" else ""))
products()
launches()
training()
graphs()
