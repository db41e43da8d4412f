"""The networks of the .kir files beside this one, in PyTorch."""
import torch.nn as nn
import torch.nn.functional as F


class CharRnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.e, self.l, self.o = nn.Embedding(65, 128), nn.LSTM(128, 256, 2, batch_first=True), nn.Linear(256, 65)

    def forward(self, x):
        return self.o(self.l(self.e(x))[0]).flatten(0, 1)


class Block(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads = heads
        self.n1, self.qkv, self.p, self.n2 = nn.LayerNorm(d), nn.Linear(d, 3 * d), nn.Linear(d, d), nn.LayerNorm(d)
        self.m = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (y.view(b, t, self.heads, d // self.heads).transpose(1, 2) for y in self.qkv(self.n1(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.p(y.transpose(1, 2).reshape(b, t, d))
        return x + self.m(self.n2(x))


class NanoGpt(nn.Module):
    def __init__(self, d=128, layers=4, heads=4):
        super().__init__()
        self.e, self.p = nn.Embedding(65, d), nn.Embedding(128, d)
        self.b = nn.Sequential(*[Block(d, heads) for _ in range(layers)])
        self.n, self.o = nn.LayerNorm(d), nn.Linear(d, 65)

    def forward(self, x):
        return self.o(self.n(self.b(self.e(x) + self.p.weight))).flatten(0, 1)


class Res(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.a, self.x = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.b, self.y = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        same = stride == 1 and i == o
        self.d = nn.Identity() if same else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, h):
        return F.relu(self.y(self.b(F.relu(self.x(self.a(h))))) + self.d(h))


def make(name):
    if name == "mlp_b128":
        return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
    if name == "mnist_cnn_b64":
        return nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                             nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10))
    if name == "char_lstm_b32_t64":
        return CharRnn()
    if name == "nanogpt_b8_t128":
        return NanoGpt()
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), Res(16, 16, 1), Res(16, 32, 2), Res(32, 64, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(64, 10))
