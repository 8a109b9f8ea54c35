"""The mini autoencoder: a 2-D network with the tensor names of diffusers' AutoencoderKLQwenImage.

A single picture meets only the last temporal slice of each 3-D kernel, so the network is trained in
two dimensions and `exported` writes the full kernels, zero elsewhere.
"""

import math

import torch
import torch.nn.functional as F

CONFIG = {
    "base_dim": 16,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 6],
    "num_res_blocks": 1,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "dropout": 0.0,
}


class Autoencoder(torch.nn.Module):
    """Pictures [n, 3, h, w] in -1 ... 1 to latents [n, 16, h / 8, w / 8] and back."""

    def __init__(self):
        super().__init__()
        from diffusers import AutoencoderKLQwenImage

        model = AutoencoderKLQwenImage(**CONFIG)
        self.shapes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
        self.weights = torch.nn.ParameterDict()
        for name, tensor in model.state_dict().items():
            if "time_conv" not in name:
                flat = tensor[:, :, -1] if tensor.ndim == 5 else tensor
                flat = flat.reshape(-1) if name.endswith("gamma") else flat
                self.weights[name.replace(".", "/")] = torch.nn.Parameter(flat.clone())

    def tensor(self, name):
        return self.weights[name.replace(".", "/")]

    def conv(self, name, x, stride=1, padding=None):
        weight = self.tensor(name + ".weight")
        padding = weight.shape[-1] // 2 if padding is None else padding
        return F.conv2d(x, weight, self.tensor(name + ".bias"), stride, padding)

    def norm(self, name, x):
        scale = self.tensor(name + ".gamma") * math.sqrt(x.shape[1])
        return F.normalize(x, dim=1) * scale[None, :, None, None].to(x.dtype)

    def residual(self, name, x):
        h = self.conv(name + ".conv1", F.silu(self.norm(name + ".norm1", x)))
        h = self.conv(name + ".conv2", F.silu(self.norm(name + ".norm2", h)))
        if (name + ".conv_shortcut.weight").replace(".", "/") in self.weights:
            x = self.conv(name + ".conv_shortcut", x)
        return x + h

    def middle(self, name, x):
        x = self.residual(name + ".resnets.0", x)
        n, c, h, w = x.shape
        block = name + ".attentions.0"
        qkv = self.conv(block + ".to_qkv", self.norm(block + ".norm", x))
        q, k, v = qkv.reshape(n, 1, 3 * c, h * w).transpose(2, 3).chunk(3, -1)
        a = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(n, c, h, w)
        return self.residual(name + ".resnets.1", x + self.conv(block + ".proj", a))

    def encode(self, x):
        """Means of the latents; the variances are not trained."""
        x = self.conv("encoder.conv_in", x)
        for i in range(7):
            block = f"encoder.down_blocks.{i}"
            if i % 2 == 0:
                x = self.residual(block, x)
            else:
                x = self.conv(block + ".resample.1", F.pad(x, (0, 1, 0, 1)), 2, 0)
        x = self.middle("encoder.mid_block", x)
        x = self.conv("encoder.conv_out", F.silu(self.norm("encoder.norm_out", x)))
        return self.conv("quant_conv", x)[:, :16]

    def decode(self, z):
        x = self.conv("decoder.conv_in", self.conv("post_quant_conv", z))
        x = self.middle("decoder.mid_block", x)
        for i in range(4):
            block = f"decoder.up_blocks.{i}"
            for j in range(CONFIG["num_res_blocks"] + 1):
                x = self.residual(f"{block}.resnets.{j}", x)
            if i < 3:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
                x = self.conv(block + ".upsamplers.0.resample.1", x)
        return self.conv("decoder.conv_out", F.silu(self.norm("decoder.norm_out", x)))

    def exported(self):
        """The tensors as diffusers has them."""
        tensors = {}
        for name, shape in self.shapes.items():
            tensor = torch.zeros(shape)
            key = name.replace(".", "/")
            if key in self.weights:
                flat = self.weights[key].detach()
                if len(shape) == 5:
                    tensor[:, :, -1] = flat
                else:
                    tensor.copy_(flat.reshape(shape))
            tensors[name] = tensor
        return tensors
