"""An SAE whose training diverged is refused with the number that its latent has."""

import pytest
import torch
from scipy import sparse

from faithful_sae.latents import Encoded
from faithful_sae.sae import SAE
from faithful_sae.similarity import compare


def test_a_latent_that_is_not_finite_is_named_by_its_number_among_all():
    """Not by that among the alive ones, which are matched too: half of them are dead here."""
    W_dec = torch.eye(6)
    fires = sparse.csr_array(torch.tensor([[1.0, 0, 0, 0, 1, 1]]).numpy())
    whole = Encoded(SAE(W_dec.T, torch.zeros(6), W_dec, torch.zeros(6), 1), fires)
    broken = W_dec.clone()
    broken[4, 2] = torch.nan
    diverged = Encoded(SAE(W_dec.T, torch.zeros(6), broken, torch.zeros(6), 1), fires)
    with pytest.raises(ValueError, match="row 4 of the second dictionary is not finite"):
        compare(whole, diverged)
