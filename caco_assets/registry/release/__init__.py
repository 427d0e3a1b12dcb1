"""An encoder in the forms that other tools load: timm, ONNX, torch.export, and a STAC item that describes them."""
