"""Releases: exports to timm, ONNX and torch.export, a STAC item that describes them, and the model card."""
