"""Sparse autoencoders: the function, and the folder that the field's other tools open."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from faithful_sae.checksums import damage
from faithful_sae.files import written_whole
from faithful_sae.linear import linear
from faithful_sae.tensors import tensors_digest

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"  # SAELens 6 names
# Of the files that were read, not of what they hold: other shards must change no byte of weights.
UNSEALED = {"activations_sha256"}


@dataclass
class SAE:
    """A TopK or BatchTopK sparse autoencoder on raw activations.

    latents = activate(ReLU((x - b_dec) W_enc + b_enc)),   x_hat = latents W_dec + b_dec

    TopK (Gao et al. 2024, arXiv 2406.04093) keeps the k largest latents of each token. BatchTopK
    (Bussmann et al. 2024, arXiv 2412.06410) keeps the k * n largest of a training batch of n tokens
    and, once trained, those above one `threshold`, the expected smallest kept value.

    W_enc: [d_in, d_sae]; b_enc: [d_sae]; W_dec: [d_sae, d_in] with unit rows; b_dec: [d_in];
    k: active latents per token; threshold: scalar, or [d_sae] of an SAE that has one for each
    latent (JumpReLU; of zeros: ReLU), None for TopK.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    k: int
    threshold: Tensor | None = None

    @property
    def d_in(self) -> int:
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        return self.W_dec.shape[0]

    @classmethod
    def untrained(cls, *, d_in: int, d_sae: int, k: int, seed: int) -> Self:
        """An SAE at initialisation: random unit decoder rows, encoder tied to them, no biases."""
        generator = torch.Generator().manual_seed(seed)
        W_dec = torch.randn(d_sae, d_in, generator=generator)
        W_dec /= W_dec.norm(dim=1, keepdim=True)
        return cls(W_dec.T.contiguous(), torch.zeros(d_sae), W_dec, torch.zeros(d_in), k)

    @classmethod
    def untrained_about(cls, mean: Tensor, *, d_sae: int, k: int, seed: int) -> Self:
        """What training of this shape and seed starts from on activations of this mean, [d_in].

        Without the mean, the same few latents nearest to it would fire on every token, and a third
        of all never.
        """
        sae = cls.untrained(d_in=len(mean), d_sae=d_sae, k=k, seed=seed)
        sae.b_dec = mean
        return sae

    def encode(self, x: Tensor) -> Tensor:
        """Latents [n, d_sae] of activations x [n, d_in], zero where inactive."""
        latents = linear(x - self.b_dec, self.W_enc.T, self.b_enc).relu_()
        if self.threshold is not None:
            return latents * (latents > self.threshold)
        values, indices = latents.topk(self.k, dim=1, sorted=False)
        return torch.zeros_like(latents).scatter_(1, indices, values)

    def decode(self, latents: Tensor) -> Tensor:
        """Reconstruction x_hat [n, d_in] of latents [n, d_sae]."""
        return linear(latents, self.W_dec.T, self.b_dec)

    def __call__(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def to(self, device: torch.device) -> Self:
        return type(self)(
            W_enc=self.W_enc.to(device),
            b_enc=self.b_enc.to(device),
            W_dec=self.W_dec.to(device),
            b_dec=self.b_dec.to(device),
            k=self.k,
            threshold=None if self.threshold is None else self.threshold.to(device),
        )

    def save(self, folder: Path, provenance: dict[str, Any]) -> None:
        """Write the folder that `sae_lens.SAE.load_from_disk` and `SAE.load` open.

        `provenance` goes into cfg.json's `metadata`. BatchTopK is saved as what it is after
        training, a JumpReLU SAE with one threshold for all latents.
        """
        from safetensors.torch import save_file

        tensors = {"W_enc": self.W_enc, "b_enc": self.b_enc, "W_dec": self.W_dec}
        tensors["b_dec"] = self.b_dec
        config: dict[str, Any] = {"architecture": "topk", "k": self.k}
        if self.threshold is not None:
            tensors["threshold"] = self.threshold.expand(self.d_sae)
            config["architecture"] = "jumprelu"
        else:
            config["rescale_acts_by_decoder_norm"] = False
        config |= {
            "d_in": self.d_in,
            "d_sae": self.d_sae,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "metadata": provenance | {"sae_lens_version": "6.54.12", "torch": version("torch")},
        }
        tensors = {name: t.contiguous().cpu() for name, t in tensors.items()}
        config = json.loads(json.dumps(config))  # as it is when read
        names = sorted(config["metadata"].keys() - UNSEALED)
        digest = tensors_digest(tensors, _sealed(config, names))
        seal = {"sha256": " ".join([digest, *names])}  # of two keys the order would be random
        with written_whole(folder / WEIGHTS) as temporary:
            save_file(tensors, temporary, seal)
        with written_whole(folder / CONFIG) as temporary:
            temporary.write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder written by `save`.

        Raises ValueError naming the file when it is damaged, and when `k` is missing: other tools
        then silently assume 100.
        """
        from safetensors import SafetensorError, safe_open

        try:
            config = json.loads((folder / CONFIG).read_text())
        except ValueError as error:
            raise damage(folder / CONFIG, str(error)) from error
        try:
            with safe_open(folder / WEIGHTS, framework="pt") as file:
                seal = (file.metadata() or {}).get("sha256")
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except SafetensorError as error:
            raise damage(folder / WEIGHTS, str(error)) from error
        if not isinstance(config.get("k"), int):
            raise ValueError(f"{folder / CONFIG} states no k; an SAE cannot be read without it.")
        digest, *names = (seal or "").split(" ")
        if seal and digest != tensors_digest(tensors, _sealed(config, names)):
            raise damage(folder / WEIGHTS, f"it and {CONFIG} are not what was written together")
        threshold = tensors.pop("threshold", None)
        if threshold is not None and bool((threshold == threshold[0]).all()):
            threshold = threshold[0]  # BatchTopK has one for all latents
        return cls(**tensors, k=config["k"], threshold=threshold)


def sae_folders(files: Iterable[str | Path]) -> list[Path]:
    """The folder of each SAE whose files these are, once and in their order."""
    return list(dict.fromkeys(Path(file).parent for file in files))


def _sealed(config: dict[str, Any], names: list[str]) -> str:
    """What of cfg.json is sealed: its settings, and of its metadata these names.

    The rest a user may edit. Files of earlier versions sealed no metadata.
    """
    sealed = {key: value for key, value in config.items() if key != "metadata"}
    if names:
        metadata = config.get("metadata", {})
        sealed["metadata"] = {name: metadata.get(name) for name in names}
    return json.dumps(sealed, sort_keys=True)
