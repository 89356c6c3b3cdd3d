"""Names of coordinates that no config invents."""

# Stands where the training corpus would, of an SAE that was trained elsewhere.
PRETRAINED = "pretrained"
