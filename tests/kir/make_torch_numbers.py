#!/usr/bin/env python3
"""Writes eval/torch_*.kir: losses, optimizers and layers on small tensors, with the values and gradients that PyTorch gives.

    pip install torch numpy
    python3 make_torch_numbers.py

The files are part of the project; this script is how they were made (PyTorch's version is in their first lines).
"""
import os
import torch
import torch.nn as nn
import torch.nn.functional as F

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "eval")
HEAD = """// Written by make_torch_numbers.py with PyTorch %s.
import nn, optim, loss, metrics

func close(a, b) { return all(abs(a - b) <= 1e-5 * (1.0 + abs(b))) }
""" % torch.__version__.split("+")[0]


def text(t):
    if not isinstance(t, torch.Tensor):
        return repr(t).lower() if isinstance(t, bool) else repr(t)
    t = t.detach()

    def nested(v):
        if isinstance(v, list):
            return "[" + ", ".join(nested(x) for x in v) + "]"
        if isinstance(v, bool):
            return "true" if v else "false"
        return repr(v) if isinstance(v, int) else "%.8g" % v if "." in ("%.8g" % v) or "e" in ("%.8g" % v) else "%.8g.0" % v

    return "tensor(" + nested(t.tolist()) + ")"


def rand(*shape, seed):
    g = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, generator=g) * 2 - 1).mul(1000).round().div(1000)


def losses():
    out = [HEAD, "func ctc_of_logits(z, t, i, l) { return loss.ctc_loss(log_softmax(z, 2), t, i, l) }"]
    x = rand(4, 5, seed=1)
    y = torch.tensor([1, 0, 4, 2])
    y2 = torch.tensor([1, -100, 4, 2])
    w = torch.tensor([0.5, 1.0, 2.0, 1.5, 0.25])
    p = torch.softmax(rand(4, 5, seed=2), 1)
    a, b = rand(3, 4, seed=3), rand(3, 4, seed=4)
    s = torch.tensor([1.0, -1.0, 1.0])
    t01 = (rand(3, 4, seed=5) > 0).float()
    z = rand(6, seed=9)
    cases = [
        ("cross_entropy", "loss.cross_entropy", F.cross_entropy, [x, y], {}),
        ("cross_entropy_weight", "loss.cross_entropy", F.cross_entropy, [x, y], {"weight": w}),
        ("cross_entropy_ignore", "loss.cross_entropy", F.cross_entropy, [x, y2], {}),
        ("cross_entropy_smooth", "loss.cross_entropy", F.cross_entropy, [x, y], {"label_smoothing": 0.1}),
        ("cross_entropy_smooth_weight", "loss.cross_entropy", F.cross_entropy, [x, y2], {"label_smoothing": 0.2, "weight": w}),
        ("cross_entropy_sum", "loss.cross_entropy", F.cross_entropy, [x, y2], {"reduction": "sum", "label_smoothing": 0.1}),
        ("cross_entropy_soft", "loss.cross_entropy", F.cross_entropy, [x, p], {"label_smoothing": 0.1}),
        ("nll", "loss.nll_loss", F.nll_loss, [x, y2], {"weight": w}),
        ("mse", "loss.mse_loss", F.mse_loss, [a, b], {}),
        ("mse_sum", "loss.mse_loss", F.mse_loss, [a, b], {"reduction": "sum"}),
        ("l1_mean", "loss.l1_loss", F.l1_loss, [a, b], {}),
        ("l1", "loss.l1_loss", F.l1_loss, [a, b], {"reduction": "sum"}),
        ("huber", "loss.huber_loss", F.huber_loss, [a * 3, b], {"delta": 0.7}),
        ("smooth_l1", "loss.smooth_l1_loss", F.smooth_l1_loss, [a * 3, b], {"beta": 0.5}),
        ("bce", "loss.binary_cross_entropy", F.binary_cross_entropy, [p, torch.softmax(x, 1)], {}),
        ("bce_logits", "loss.binary_cross_entropy_with_logits", F.binary_cross_entropy_with_logits, [a * 4, t01], {}),
        ("bce_logits_pos", "loss.binary_cross_entropy_with_logits", F.binary_cross_entropy_with_logits, [a * 4, t01], {"pos_weight": torch.tensor([1.0, 2.0, 0.5, 3.0])}),
        ("kl_div", "loss.kl_div", F.kl_div, [torch.log_softmax(x, 1), p], {"reduction": "batchmean"}),
        ("cosine", "loss.cosine_embedding_loss", F.cosine_embedding_loss, [a, b, s], {"margin": 0.1}),
        ("triplet", "loss.triplet_margin_loss", F.triplet_margin_loss, [a, b, rand(3, 4, seed=6)], {}),
        ("triplet_swap", "loss.triplet_margin_loss", F.triplet_margin_loss, [a, b, rand(3, 4, seed=6)], {"swap": True}),
        ("hinge", "loss.hinge_embedding_loss", F.hinge_embedding_loss, [a, torch.where(t01 > 0, 1.0, -1.0)], {}),
        ("soft_margin", "loss.soft_margin_loss", F.soft_margin_loss, [a, torch.where(t01 > 0, 1.0, -1.0)], {}),
        ("margin_ranking", "loss.margin_ranking_loss", F.margin_ranking_loss, [z[:3], z[3:], s], {"margin": 0.2}),
        ("gaussian", "loss.gaussian_nll_loss", F.gaussian_nll_loss, [a, b, a * a + 0.1], {}),
        ("poisson", "loss.poisson_nll_loss", F.poisson_nll_loss, [a, b.abs()], {}),
        # Through log_softmax: PyTorch's own gradient at log_probs is the one at the logits before it.
        ("ctc", "ctc_of_logits", lambda z, *rest: F.ctc_loss(torch.log_softmax(z, 2), *rest), [rand(8, 2, 5, seed=7), torch.tensor([[1, 2, 2], [3, 1, 4]]), torch.tensor([8, 7]), torch.tensor([3, 2])], {}),
    ]
    for name, ours, theirs, args, kwargs in cases:
        first = args[0].clone().requires_grad_()
        value = theirs(first, *args[1:], **kwargs)
        value.backward()
        out.append("export func %s() {" % name)
        out.append("  x = %s" % text(args[0]))
        rest = "".join(", " + text(t) for t in args[1:]) + "".join(
            ", %s=%s" % (k, '"%s"' % v if isinstance(v, str) else text(v)) for k, v in kwargs.items())
        out.append("  l = %s(x%s)" % (ours, rest))
        out.append("  return (close(l, %s), close(grad(l, x), %s))" % (text(value), text(first.grad)))
        out.append("}")
    return "\n".join(out) + "\n"


def optimizers():
    out = [HEAD]
    cases = [
        ("sgd", "SGD", torch.optim.SGD, {"lr": 0.1}),
        ("sgd_momentum", "SGD", torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.05}),
        ("sgd_nesterov", "SGD", torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        ("adam", "Adam", torch.optim.Adam, {"lr": 0.05}),
        ("adam_decay", "Adam", torch.optim.Adam, {"lr": 0.05, "weight_decay": 0.1, "betas": (0.8, 0.9)}),
        ("adam_amsgrad", "Adam", torch.optim.Adam, {"lr": 0.05, "amsgrad": True}),
        ("adamw", "AdamW", torch.optim.AdamW, {"lr": 0.05, "weight_decay": 0.2}),
        ("rmsprop", "RMSprop", torch.optim.RMSprop, {}),
        ("rmsprop_centered", "RMSprop", torch.optim.RMSprop, {"momentum": 0.9, "centered": True, "weight_decay": 0.01}),
        ("sgd_maximize", "SGD", torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
        ("adamw_amsgrad", "AdamW", torch.optim.AdamW, {"lr": 0.05, "amsgrad": True, "betas": (0.7, 0.95), "eps": 1e-4}),
        ("adagrad", "Adagrad", torch.optim.Adagrad, {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.1}),
        ("adadelta", "Adadelta", torch.optim.Adadelta, {"weight_decay": 0.01}),
    ]
    if hasattr(torch.optim, "Muon"):
        cases.append(("muon", "Muon", torch.optim.Muon, {"lr": 0.05}))
    start = rand(2, 3, seed=11)
    for name, ours, theirs, kwargs in cases:
        p = torch.nn.Parameter(start.clone())
        opt = theirs([p], **kwargs)
        options = "".join(", %s=%s" % (k, text(v) if not isinstance(v, tuple) else list(v)) for k, v in kwargs.items())
        out.append("model P_%s { param w: f32[2, 3] = %s }" % (name, text(start)[7:-1]))
        out.append("p_%s = P_%s()" % (name, name))
        out.append("o_%s = optim.%s(p_%s%s)" % (name, ours, name, options))
        out.append("export func %s() {" % name)
        for step in range(4):
            g = rand(2, 3, seed=20 + step)
            p.grad = g.clone()
            opt.step()
            out.append("  o_%s.step([%s])" % (name, text(g)))
        tolerance = "" if name != "muon" else " // PyTorch orthogonalises in bf16"
        if name == "muon":
            out.append("  return all(abs(p_%s.w - %s) < 0.02)%s" % (name, text(p), tolerance))
        else:
            out.append("  return close(p_%s.w, %s)" % (name, text(p)))
        out.append("}")
    g = [rand(2, 3, seed=31), rand(4, seed=32)]
    ps = [torch.nn.Parameter(torch.zeros_like(v)) for v in g]
    for q, v in zip(ps, g):
        q.grad = v.clone()
    total = torch.nn.utils.clip_grad_norm_(ps, 0.5)
    out.append("export func clip() {")
    out.append("  g, total = optim.clip_grad_norm([%s, %s], 0.5)" % (text(g[0]), text(g[1])))
    out.append("  return (close(total, %s), close(g[0], %s), close(g[1], %s))" % (text(total), text(ps[0].grad), text(ps[1].grad)))
    out.append("}")
    for q, v in zip(ps, g):
        q.grad = v.clone()
    torch.nn.utils.clip_grad_value_(ps, 0.3)
    out.append("export func clip_value() {")
    out.append("  g = optim.clip_grad_value([%s, %s], 0.3)" % (text(g[0]), text(g[1])))
    out.append("  return (close(g[0], %s), close(g[1], %s))" % (text(ps[0].grad), text(ps[1].grad)))
    out.append("}")
    # Lion (Chen et al. 2023) is not in PyTorch: its published update, in PyTorch's arithmetic.
    p, m = start.clone(), torch.zeros(2, 3)
    out += ["model P_lion { param w: f32[2, 3] = %s }" % text(start)[7:-1], "p_lion = P_lion()",
            "o_lion = optim.Lion(p_lion, lr=0.05, betas=[0.9, 0.99], weight_decay=0.1)", "export func lion() {"]
    for step in range(4):
        grad = rand(2, 3, seed=20 + step)
        p = p * (1 - 0.05 * 0.1) - 0.05 * torch.sign(0.9 * m + 0.1 * grad)
        m = 0.99 * m + 0.01 * grad
        out.append("  o_lion.step([%s])" % text(grad))
    out += ["  return close(p_lion.w, %s)" % text(p), "}"]
    # A mean of the params that moves after each step.
    p = torch.nn.Parameter(start.clone())
    opt = torch.optim.SGD([p], lr=0.1)
    holder = nn.ParameterList([p])
    average = torch.optim.swa_utils.AveragedModel(holder, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.8))
    out += ["model P_ema { param w: f32[2, 3] = %s }" % text(start)[7:-1], "p_ema = P_ema()", "o_ema = optim.SGD(p_ema, lr=0.1)",
            "e_ema = optim.EMA(p_ema, 0.8)", "export func ema() {"]
    for step in range(4):
        p.grad = rand(2, 3, seed=20 + step)
        opt.step()
        average.update_parameters(holder)
        out += ["  o_ema.step([%s])" % text(p.grad), "  e_ema.update()"]
    out += ["  e_ema.copy_to()", "  return close(p_ema.w, %s)" % text(next(average.module.parameters())), "}"]
    opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=1, factor=0.5)
    rates = []
    out += ["plateau_rate = optim.ReduceLROnPlateau(0.1, patience=1, factor=0.5)", "export func plateau() {", "  rates = []"]
    for metric in (1.0, 0.8, 0.9, 0.85, 0.81, 0.7, 0.75, 0.7, 0.72):
        plateau.step(metric)
        rates.append(opt.param_groups[0]["lr"])
        out += ["  plateau_rate.update(tensor(%s))" % metric, "  rates.append(plateau_rate.rate + 0.0)"]
    out += ["  return close(stack(rates), %s)" % text(torch.tensor(rates)), "}"]
    schedules = [
        ("step_lr", "optim.step_lr(0.1, s, 3, 0.5)", lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.5)),
        ("exponential", "optim.exponential_lr(0.1, s, 0.9)", lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9)),
        ("cosine", "optim.cosine_lr(0.1, s, 10, 0.01)", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10, 0.01)),
        ("warmup", "optim.warmup(0.1, s, 4)", lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda s: min((s + 1) / 4, 1))),
        ("linear", "optim.linear_lr(0.1, s, 0.25, 1.0, 6)", lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.25, 1.0, 6)),
        ("multi_step", "optim.multi_step_lr(0.1, s, [2, 5], 0.1)", lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 5], 0.1)),
        ("one_cycle", "optim.one_cycle_lr(0.1, s, 10)", lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=10)),
    ]
    for name, ours, make in schedules:
        opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        schedule = make(opt)
        rates = []
        for _ in range(8):
            rates.append(opt.param_groups[0]["lr"])
            opt.step()
            schedule.step()
        out.append("export func %s() {" % name)
        out.append("  rates = []")
        out.append("  for i in range(8) { s = tensor(i, i64); rates.append(%s) }" % ours)
        out.append("  return close(stack(rates), %s)" % text(torch.tensor(rates)))
        out.append("}")
    return "\n".join(out) + "\n"


def layers():
    out = [HEAD]
    torch.manual_seed(0)
    # name, constructor in the language, module, input shape, training mode, outputs to compare
    cases = [
        ("linear", "nn.Linear(3, 4)", nn.Linear(3, 4), (2, 3), False),
        ("bilinear", "nn.Bilinear(3, 2, 4)", nn.Bilinear(3, 2, 4), [(2, 3), (2, 2)], False),
        ("conv1d", "nn.Conv1d(2, 3, 3, stride=2, padding=1)", nn.Conv1d(2, 3, 3, stride=2, padding=1), (2, 2, 7), False),
        ("conv2d", "nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)", nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 6, 5), False),
        ("conv2d_dilated", "nn.Conv2d(2, 3, 2, dilation=2)", nn.Conv2d(2, 3, 2, dilation=2), (1, 2, 5, 6), False),
        ("conv3d", "nn.Conv3d(1, 2, 2)", nn.Conv3d(1, 2, 2), (1, 1, 3, 3, 4), False),
        ("conv_transpose1d", "nn.ConvTranspose1d(2, 3, 3, stride=2, padding=1, output_padding=1)", nn.ConvTranspose1d(2, 3, 3, stride=2, padding=1, output_padding=1), (2, 2, 4), False),
        ("conv_transpose2d", "nn.ConvTranspose2d(2, 3, 3, stride=2)", nn.ConvTranspose2d(2, 3, 3, stride=2), (1, 2, 3, 3), False),
        ("batch_norm_train", "nn.BatchNorm2d(3)", nn.BatchNorm2d(3), (2, 3, 2, 3), True),
        ("batch_norm_eval", "nn.BatchNorm2d(3)", nn.BatchNorm2d(3), (2, 3, 2, 3), False),
        ("batch_norm1d_train", "nn.BatchNorm1d(3)", nn.BatchNorm1d(3), (4, 3), True),
        ("layer_norm", "nn.LayerNorm([3, 4])", nn.LayerNorm([3, 4]), (2, 3, 4), False),
        ("group_norm", "nn.GroupNorm(2, 4)", nn.GroupNorm(2, 4), (2, 4, 3), False),
        ("instance_norm", "nn.InstanceNorm2d(3, affine=true)", nn.InstanceNorm2d(3, affine=True), (2, 3, 2, 3), False),
        ("rms_norm", "nn.RMSNorm(5, 1e-6)", nn.RMSNorm(5, 1e-6), (3, 5), False),
        ("rnn", "nn.RNN(3, 4, num_layers=2)", nn.RNN(3, 4, 2, batch_first=True), (2, 5, 3), False),
        ("gru", "nn.GRU(3, 4, bidirectional=true)", nn.GRU(3, 4, bidirectional=True, batch_first=True), (2, 5, 3), False),
        ("lstm", "nn.LSTM(3, 4, num_layers=2, bidirectional=true)", nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True), (2, 4, 3), False),
        ("attention", "nn.MultiheadAttention(4, 2)", nn.MultiheadAttention(4, 2, batch_first=True), [(2, 3, 4)] * 3, False),
        ("encoder", "nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0)", nn.TransformerEncoderLayer(4, 2, 6, 0.0, batch_first=True), (2, 3, 4), True),
        ("encoder_pre", "nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, activation=\"gelu\", norm_first=true)",
         nn.TransformerEncoderLayer(4, 2, 6, 0.0, "gelu", batch_first=True, norm_first=True), (2, 3, 4), True),
        ("decoder", "nn.TransformerDecoderLayer(4, 2, 6, dropout=0.0)", nn.TransformerDecoderLayer(4, 2, 6, 0.0, batch_first=True), [(2, 3, 4), (2, 5, 4)], True),
        ("max_pool", "nn.MaxPool2d(3, 2, 1)", nn.MaxPool2d(3, 2, 1), (1, 2, 6, 5), False),
        ("avg_pool", "nn.AvgPool2d(3, 2, 1)", nn.AvgPool2d(3, 2, 1), (1, 2, 6, 5), False),
        ("upsample", "nn.Upsample(scale_factor=2, mode=\"bilinear\")", nn.Upsample(scale_factor=2, mode="bilinear"), (1, 1, 3, 4), False),
    ]
    cases += [
        ("conv_transpose2d_groups", "nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2)", nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2), (1, 4, 3, 4), False),
        ("batch_norm3d_train", "nn.BatchNorm3d(2)", nn.BatchNorm3d(2), (2, 2, 2, 3, 2), True),
        ("instance_norm_plain", "nn.InstanceNorm1d(3)", nn.InstanceNorm1d(3), (2, 3, 5), False),
        ("rnn_relu", "nn.RNN(3, 4, nonlinearity=\"relu\")", nn.RNN(3, 4, nonlinearity="relu", batch_first=True), (2, 5, 3), False),
        ("gru_two", "nn.GRU(3, 4, num_layers=2)", nn.GRU(3, 4, 2, batch_first=True), (2, 3, 3), False),
        ("lstm_one", "nn.LSTM(3, 4)", nn.LSTM(3, 4, batch_first=True), (2, 4, 3), False),
        ("max_pool1d", "nn.MaxPool1d(2)", nn.MaxPool1d(2), (2, 3, 7), False),
        ("max_pool_plain", "nn.MaxPool2d(2)", nn.MaxPool2d(2), (1, 2, 5, 6), False),
        ("max_pool_dilated", "nn.MaxPool2d(2, 1, 0, 2)", nn.MaxPool2d(2, 1, 0, 2), (1, 2, 5, 6), False),
        ("adaptive", "nn.AdaptiveAvgPool2d(2)", nn.AdaptiveAvgPool2d(2), (1, 2, 6, 4), False),
        ("upsample_nearest", "nn.Upsample(scale_factor=2)", nn.Upsample(scale_factor=2), (1, 2, 3, 2), False),
        ("upsample_corners", "nn.Upsample(size=[5, 7], mode=\"bilinear\", align_corners=true)", nn.Upsample(size=[5, 7], mode="bilinear", align_corners=True), (1, 1, 3, 4), False),
        ("pixel_shuffle", "nn.PixelShuffle(2)", nn.PixelShuffle(2), (1, 4, 2, 3), False),
        ("gelu_tanh", "nn.GELU(\"tanh\")", nn.GELU("tanh"), (3, 4), False),
        ("softmax", "nn.Softmax(1)", nn.Softmax(1), (3, 4), False),
        ("log_softmax_layer", "nn.LogSoftmax(1)", nn.LogSoftmax(1), (3, 4), False),
        ("softmin", "nn.Softmin(1)", nn.Softmin(1), (3, 4), False),
        ("glu", "nn.GLU(1)", nn.GLU(1), (3, 4), False),
        ("threshold", "nn.Threshold(0.1, -2.0)", nn.Threshold(0.1, -2.0), (3, 4), False),
    ]
    cases += [
        ("conv_transpose3d", "nn.ConvTranspose3d(2, 3, 2, stride=2)", nn.ConvTranspose3d(2, 3, 2, stride=2), (1, 2, 2, 2, 3), False),
        ("bilinear_plain", "nn.Bilinear(3, 2, 4, bias=false)", nn.Bilinear(3, 2, 4, bias=False), [(2, 3), (2, 2)], False),
        ("rms_norm_default", "nn.RMSNorm([3, 4])", nn.RMSNorm([3, 4]), (2, 3, 4), False),
        ("group_norm_plain", "nn.GroupNorm(2, 4, affine=false)", nn.GroupNorm(2, 4, affine=False), (2, 4, 3), False),
        ("max_pool3d", "nn.MaxPool3d(2, 1)", nn.MaxPool3d(2, 1), (1, 2, 3, 3, 4), False),
        ("max_pool1d_ceil", "nn.MaxPool1d(3, 2, 1, ceil_mode=true)", nn.MaxPool1d(3, 2, 1, ceil_mode=True), (2, 3, 8), False),
        ("avg_pool1d", "nn.AvgPool1d(3, 2, 1)", nn.AvgPool1d(3, 2, 1), (2, 3, 8), False),
        ("avg_pool3d", "nn.AvgPool3d(2)", nn.AvgPool3d(2), (1, 2, 4, 2, 5), False),
        ("adaptive_avg1d", "nn.AdaptiveAvgPool1d(3)", nn.AdaptiveAvgPool1d(3), (2, 3, 7), False),
        ("adaptive_avg2d", "nn.AdaptiveAvgPool2d([3, none])", nn.AdaptiveAvgPool2d((3, None)), (1, 2, 7, 5), False),
        ("adaptive_avg3d", "nn.AdaptiveAvgPool3d([2, 3, 1])", nn.AdaptiveAvgPool3d((2, 3, 1)), (1, 2, 4, 5, 3), False),
        ("adaptive_max1d", "nn.AdaptiveMaxPool1d(3)", nn.AdaptiveMaxPool1d(3), (2, 3, 7), False),
        ("adaptive_max2d", "nn.AdaptiveMaxPool2d([2, 3])", nn.AdaptiveMaxPool2d((2, 3)), (1, 2, 4, 5), False),
        ("adaptive_max3d", "nn.AdaptiveMaxPool3d([2, 2, 2])", nn.AdaptiveMaxPool3d((2, 2, 2)), (1, 1, 4, 3, 5), False),
        ("lstm_cell", "nn.LSTMCell(3, 4)", nn.LSTMCell(3, 4), (2, 3), False),
        ("gru_cell", "nn.GRUCell(3, 4)", nn.GRUCell(3, 4), [(2, 3), (2, 4)], False),
        ("rnn_cell", "nn.RNNCell(3, 4)", nn.RNNCell(3, 4), [(2, 3), (2, 4)], False),
        ("gru_first", "nn.GRU(3, 4, num_layers=2)", nn.GRU(3, 4, 2, batch_first=True), [(2, 3, 3), (2, 2, 4)], False),
        ("rnn_first", "nn.RNN(3, 4, bidirectional=true)", nn.RNN(3, 4, bidirectional=True, batch_first=True), [(2, 3, 3), (2, 2, 4)], False),
        ("flatten_back", "nn.Unflatten(1, [2, 3])", nn.Unflatten(1, (2, 3)), (2, 6), False),
        ("zero_pad", "nn.ZeroPad2d([1, 0, 2, 1])", nn.ZeroPad2d((1, 0, 2, 1)), (1, 1, 2, 3), False),
        ("cosine_similarity", "nn.CosineSimilarity()", nn.CosineSimilarity(), [(3, 4), (3, 4)], False),
    ]
    cases += [("act_" + kind.lower(), "nn.%s()" % kind, getattr(nn, kind)(), (4, 5), False) for kind in (
        "ReLU ReLU6 LeakyReLU ELU SELU GELU SiLU Mish Softplus Softsign Tanh Sigmoid Hardswish Hardsigmoid Hardtanh CELU LogSigmoid "
        "Tanhshrink Softshrink Hardshrink PReLU").split()]
    for name, ours, module, shapes, training in cases:
        module.train(training)
        # Weights that are not all ones and zeros.
        for i, p in enumerate(module.parameters()):
            p.data = rand(*p.shape, seed=100 + i)
        shapes = shapes if isinstance(shapes, list) else [shapes]
        inputs = [(rand(*shape, seed=200 + i) * (6 if name.startswith("act_") else 1)).requires_grad_() for i, shape in enumerate(shapes)]
        y = module(*inputs)
        extra = y[1:] if isinstance(y, tuple) and isinstance(module, (nn.RNNBase, nn.LSTMCell)) else ()
        y = y[0] if isinstance(y, tuple) else y
        states = [s for e in extra for s in (e if isinstance(e, tuple) else (e,))]
        weights = rand(*y.shape, seed=300)
        loss = (y * weights).sum() + sum((s * s).sum() for s in states)
        parameters = dict(module.named_parameters())
        gradients = torch.autograd.grad(loss, inputs + list(parameters.values()))
        tuples = isinstance(module, (nn.RNNBase, nn.LSTMCell))
        out.append("m_%s = %s" % (name, ours))
        out.append("export func %s() {" % name)
        for key, p in parameters.items():
            out.append("  m_%s.%s = %s" % (name, key, text(p)))
        names = ["x%d" % i for i in range(len(inputs))]
        for n, v in zip(names, inputs):
            out.append("  %s = %s" % (n, text(v)))
        call = "train(m_%s, %s)" % (name, ", ".join(names)) if training else "m_%s(%s)" % (name, ", ".join(names))
        if tuples:
            out.append("  r = " + call)
            out.append("  y = r[0]")
            loss_text = "sum(y * %s)" % text(weights) + "".join(" + sum(square(r[%d]))" % (i + 1) for i in range(len(states)))
        else:
            out.append("  y = " + call)
            loss_text = "sum(y * %s)" % text(weights)
        out.append("  l = " + loss_text)
        wanted = names + ["m_%s.%s" % (name, key) for key in parameters]
        out.append("  g = grad(l, [%s])" % ", ".join(wanted))
        checks = ["close(y, %s)" % text(y)] + ["close(g[%d], %s)" % (i, text(v)) for i, v in enumerate(gradients)]
        if name.endswith("_train"):
            checks += ["close(m_%s.running_mean, %s)" % (name, text(module.running_mean)), "close(m_%s.running_var, %s)" % (name, text(module.running_var))]
        out.append("  return (%s)" % ",\n          ".join(checks))
        out.append("}")
    table = rand(5, 3, seed=100).requires_grad_()
    at = torch.tensor([[1, 4, 0], [2, 1, 1]])
    y = F.embedding(at, table, padding_idx=2)
    weights = rand(*y.shape, seed=300)
    (y * weights).sum().backward()
    out += ["m_embedding = nn.Embedding(5, 3, padding_idx=2)", "export func embedding_padded() {", "  m_embedding.weight = %s" % text(table),
            "  y = m_embedding(%s)" % text(at), "  return (close(y, %s)," % text(y),
            "          close(grad(sum(y * %s), m_embedding.weight), %s))" % (text(weights), text(table.grad)), "}"]
    return "\n".join(out) + "\n"


for file, make in (("torch_losses", losses), ("torch_optimizers", optimizers), ("torch_layers", layers)):
    with open(os.path.join(HERE, file + ".kir"), "w") as f:
        f.write(make())
